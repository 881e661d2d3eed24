"""The whole benchmark: every method, every concept, and many edits beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..models.arguments import checked
from ..models.base import Model
from ..models.progress import Progress, showing
from ..models.store.store import Store
from .collecting import Collected
from .concept import Concept
from .costing import counted
from .locating import layers_for
from .methods import Make, Method
from .page import write_page
from .painting import Painter
from .planning import MANY, STEPS, Plan
from .repeating import ORDERS, chosen_many, probes_of, repeated
from .result import EditBenchmark
from .trial import clean, tried

UNITS = "units"


@checked
def edits(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model | str = "emoji",
    *,
    methods: Sequence[str] | Mapping[str, Make] | None = None,
    concepts: Sequence[Concept] | Sequence[str] | int | str | Path | None = None,
    seeds: int | Sequence[int] = 8,
    steps: int = STEPS,
    guidance: float | None = None,
    judge: Any = None,
    many: Sequence[int] = MANY,
    quick: bool = False,
    folder: str | Path = "bench-edits",
    progress: Progress | None = None,
) -> EditBenchmark:
    """Compare methods of editing: each asked for each concept, under the same seeds and the same judge.

    Efficacy, generality (other wordings, capitals, plurals), specificity (neighbours apart from bystanders),
    distances of pictures, fit, drift, seconds, weights touched; and many edits one after the other and at
    once. docs/bench-edits.md has the definitions. A method that refuses a request is in the tables with its
    reason. What is done is on disk at once: the same call goes on where it was stopped.

    Args:
        model: an opened model that reads text, or what ``load`` takes.
        methods: names (``denoscope.bench.METHODS``, ``"uce/code"``); or name -> function of a model and
            requests, whose results are kept under that name.
        concepts: a CSV file (``read_concepts``), Concepts, or of those that ship: a number of them, words or
            kinds; None is all 50.
        seeds: how many starting noises, or which.
        steps: sampling steps.
        guidance: guidance scale; None is the model's default.
        judge: as ``any_judge`` takes it; None is the one that ships with an embedded model. One with
            ``features`` gives distances of pictures as well.
        many: how many edits are tried beside each other; sizes beyond the number of concepts are left out.
        quick: one concept of each kind, two seeds, at most six steps, three edits beside each other.
        folder: where results are kept; it may hold those of other runs.
        progress: called with (done, total, what), in pictures; without it a bar comes by itself.

    Raises:
        LookupError: for unknown methods and models.
        ValueError: for no methods, concepts, seeds, and a judge that does not look.
        OSError: if the folder cannot be written.

    Example::

        found = denoscope.bench.edits("emoji", methods=["quickfix", "uce"], concepts=5, folder="bench")
        found.summary()
    """
    plan = Plan.of(
        model, methods=methods, concepts=concepts, seeds=seeds, steps=steps, guidance=guidance, judge=judge,
        many=many, quick=quick,
    )  # fmt: skip
    store = Store(Path(folder) / UNITS)
    with showing(progress) as show:
        work = _Work(plan, store, show, counted(plan, store)[0])
        found = work.done()
    found.save(folder)
    write_page(found, folder)
    return found


@dataclass(eq=False)
class _Work:
    """A benchmark under way."""

    plan: Plan
    store: Store
    show: Progress
    total: int
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.painter = Painter(self.plan, self.store, self.tell)
        self.layers = partial(layers_for, self.plan, self.store)

    def tell(self, painted: int) -> None:
        self.count = min(self.count + painted, self.total)
        self.show(self.count, self.total, "pictures")

    def done(self) -> EditBenchmark:
        """Make all that is not there."""
        found = Collected(self.plan)
        for concept in self.plan.concepts:
            known = cache(partial(clean, self.painter, concept.probes, self.plan.seeds))
            for method in self.plan.methods:
                made = tried(self.painter, self.store, method, concept, known, self.layers)
                found.add(method, concept, made, known)
        for method in self.plan.methods:
            self._many(method, found)
        self.show(self.total, self.total, "pictures")
        return found.result()

    def _many(self, method: Method, found: Collected) -> None:
        able = found.able[method.name]
        for n in self.plan.sizes:
            if len(able) < n:
                found.refused(method, n, ORDERS)
                continue
            some = chosen_many(able, n)
            probes = tuple(probes_of(some))
            known = cache(partial(clean, self.painter, probes, self.plan.few))
            for order in ORDERS:
                made = repeated(self.painter, self.store, method, order, some, known, self.layers)
                found.add_many(method, n, order, made, known)
