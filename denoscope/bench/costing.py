"""What a benchmark costs, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ..models.arguments import checked
from ..models.base import Model
from ..models.store.store import Store
from .concept import Concept
from .methods import Make
from .painting import Painter, alike
from .planning import Plan
from .repeating import ORDERS, chosen_many, parts_of_many, probes_of
from .trial import parts_of, refusal, texts_of


@dataclass(frozen=True)
class Cost:
    """What is still to be done.

    Args:
        pictures: to paint; at most: those of edits that are refused are not painted.
        total: pictures of the whole benchmark.
        edits: to make.
        a_picture: seconds that one took.
    """

    pictures: int
    total: int
    edits: int
    a_picture: float

    @property
    def seconds(self) -> float:
        """Of painting; the edits' own come to it."""
        return self.pictures * self.a_picture

    def __str__(self) -> str:
        minutes = self.seconds / 60
        return (
            f"{self.edits:,} edits and at most {self.pictures:,} pictures are left to make, of "
            f"{self.total:,}; at {self.a_picture:.2f} s a picture that is about {minutes:.0f} min"
        )


@checked
def cost(
    model: Model | str,
    *,
    methods: Sequence[str] | Mapping[str, Make] | None = None,
    concepts: Sequence[Concept] | Sequence[str] | int | str | Path | None = None,
    folder: str | Path = "bench-edits",
    **settings: Any,
) -> Cost:
    """Return what ``edits`` would cost with the same arguments; one text is painted, and kept, to measure it.

    Raises:
        as ``edits``.
    """
    plan = Plan.of(model, methods=methods, concepts=concepts, **settings)
    return cost_of(plan, Store(Path(folder) / "units"))


def cost_of(plan: Plan, store: Store) -> Cost:
    """Return what a plan costs; what is in the store is not made again."""
    pictures, total, edits = counted(plan, store)
    return Cost(pictures, total, edits, _measured(Painter(plan, store, lambda _: None)))


def counted(plan: Plan, store: Store) -> tuple[int, int, int]:
    """Return how many pictures are left to paint, of how many, and how many edits are left to make."""
    tally, painter = _Tally(store, set(store.keys())), Painter(plan, store, lambda _: None)
    able = {m.name: list[Concept]() for m in plan.methods}
    for concept in plan.concepts:
        if refusal(plan, concept.probes):
            continue
        same = alike(plan, texts_of(concept.probes))
        for text in same.values():
            tally.clean(painter.parts(text, plan.seeds), len(plan.seeds))
        own = len({same[p.prompt] for p in concept.probes}) * len(plan.seeds)
        for method in plan.methods:
            if tally.trial(parts_of(plan, method, concept), own, 1):
                able[method.name].append(concept)
    for n, method in product(plan.sizes, plan.methods):
        if len(able[method.name]) < n:
            continue
        some = chosen_many(able[method.name], n)
        probes = probes_of(some)
        for text in texts_of(probes):
            tally.clean(painter.parts(text, plan.few), len(plan.few))
        for order, made in zip(ORDERS, (n, 1), strict=True):
            tally.trial(parts_of_many(plan, method, order, some), len(probes) * len(plan.few), made)
    return tally.left, tally.total, tally.edits


@dataclass(eq=False)
class _Tally:
    """Counts what is left, and all."""

    store: Store
    there: set[str]
    left: int = 0
    total: int = 0
    edits: int = 0
    seen: set[str] = field(default_factory=set)

    def clean(self, parts: Mapping[str, Any], pictures: int) -> None:
        """Count the clean pictures of a text, once."""
        key = self.store.key(**parts)
        if key not in self.seen:
            self.seen.add(key)
            self.total += pictures
            self.left += 0 if key in self.there else pictures

    def trial(self, parts: Mapping[str, Any], pictures: int, edits: int) -> bool:
        """Count a trial; return whether the method takes what is asked, as far as is known."""
        key = self.store.key(**parts)
        unit = self.store.get(key) if key in self.there else None
        if unit is not None and unit.about["reason"] is not None:
            return False
        self.total += pictures
        if unit is None:
            self.left, self.edits = self.left + pictures, self.edits + edits
        return True


def _measured(painter: Painter) -> float:
    """Seconds a picture."""
    plan = painter.plan
    text = plan.concepts[0].of("efficacy")[0].prompt
    start = time.perf_counter()
    painter.now([text], plan.seeds)
    return (time.perf_counter() - start) / len(plan.seeds)
