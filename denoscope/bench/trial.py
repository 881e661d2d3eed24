"""One method, one concept: the edit, what it shows, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..editing.edit import Edit
from ..models.errors import DenoscopeError
from ..models.site import Site
from ..models.store.store import Store, Unit
from .concept import Concept, Probe
from .judgement import Judged, check_judge, distances, judge
from .methods import Method, Requests
from .painting import Painter, alike, shown
from .planning import Plan

Layers = Callable[[Method, Requests], Sequence[Site]]


@dataclass(frozen=True, eq=False)
class Clean:
    """What the model paints without an edit.

    Args:
        probes: the texts.
        same: for each text the first one that is read alike, whose pictures are its own.
        before: pictures of the texts, as bytes [probe, seed, 3, height, width].
        outright: pictures of what they should show, asked for outright; the oracle.
        said: what the judge says of the first.
        oracle: what it says of the second.
    """

    probes: tuple[Probe, ...]
    same: dict[str, str]
    before: Tensor
    outright: Tensor
    said: Judged
    oracle: Judged

    @property
    def own(self) -> list[int]:
        """Which texts have pictures of their own."""
        return [i for i, p in enumerate(self.probes) if self.same[p.prompt] == p.prompt]


def texts_of(probes: Sequence[Probe]) -> list[str]:
    """Return the texts that are painted without an edit, each once."""
    return list(dict.fromkeys(text for p in probes for text in (p.prompt, p.wanted)))


def refusal(plan: Plan, probes: Sequence[Probe]) -> str | None:
    """Return why the model cannot read the texts of some probes, if it cannot."""
    try:
        alike(plan, texts_of(probes))
    except DenoscopeError as error:
        return " ".join(str(error).split())
    return None


def clean(painter: Painter, probes: Sequence[Probe], seeds: Sequence[int]) -> Clean:
    """Paint and judge some texts without an edit, and what they should show.

    Raises:
        ValueError: for texts that the model cannot read, and for judges that do not look.
    """
    plan = painter.plan
    same = alike(plan, texts_of(probes))
    made = painter.clean(list(dict.fromkeys(same.values())), seeds)
    before = torch.stack([made[same[p.prompt]] for p in probes])
    outright = torch.stack([made[same[p.wanted]] for p in probes])
    check_judge(plan.judge, probes, [before, outright])
    said, oracle = (judge(plan.judge, probes, x) for x in (before, outright))
    return Clean(tuple(probes), same, before, outright, said, oracle)


@dataclass(frozen=True, eq=False)
class Seen:
    """What an edited model paints.

    Args:
        after: what the judge says.
        moved: mean absolute change of a pixel, 0 to 1, [probe, seed].
        pictures: of the first seed, [probe, 3, height, width] bytes.
    """

    after: Judged
    moved: Tensor
    pictures: Tensor


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of an edit.

    Args:
        about: reason (why there is no edit; None), seconds, number and share of weights touched, distances.
        seen: what it paints; None without an edit.
    """

    about: dict[str, Any]
    seen: Seen | None

    @classmethod
    def of(cls, unit: Unit) -> Tried:
        """Read a unit of the store."""
        about, found = dict(unit.about), unit.tensors
        if about["reason"] is not None:
            return cls(about, None)
        return cls(about, Seen(Judged.of(found), found["moved"], found["pictures"]))


def parts_of(plan: Plan, method: Method, concept: Concept) -> dict[str, Any]:
    """What a trial depends on."""
    base = {"what": "trial", **plan.about, "judge": plan.judged_by, "seeds": list(plan.seeds)}
    return {**base, "method": plan.asked(method), "concept": concept.told}


def tried(  # noqa: PLR0917  # all that a trial needs
    painter: Painter,
    store: Store,
    method: Method,
    concept: Concept,
    known: Callable[[], Clean],
    layers: Layers,
) -> Tried:
    """Return what came of one edit, made and kept if it is not there.

    Args:
        painter: of the pictures.
        store: where it is kept.
        method: makes the edit.
        concept: what is asked for.
        known: what the model paints without an edit.
        layers: finds the layers of a method that is told.
    """
    plan = painter.plan

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        unreadable = refusal(plan, concept.probes)
        if unreadable:
            return {}, {"reason": unreadable, "seconds": 0.0}
        base = known()  # before the edit
        with ExitStack() as stack:
            about = attempt(stack, plan, method, concept.requests, layers)
            if about["reason"] is not None:
                return {}, about
            tensors, measured = painted(painter, base, plan.seeds)
        return tensors, {**about, **measured}

    return Tried.of(store.make(parts_of(plan, method, concept), make))


def attempt(
    stack: ExitStack, plan: Plan, method: Method, requests: Requests, layers: Layers
) -> dict[str, Any]:
    """Make an edit and apply it for the length of the stack; or tell why not.

    Only what our own errors refuse counts as refused; a fault in a method is one.
    """
    start = time.perf_counter()
    try:
        told = layers(method, requests) if method.where else ()
        start = time.perf_counter()  # locating is an analysis, made once
        edit = method.edit(plan.model, requests, told)
        seconds = time.perf_counter() - start
        stack.enter_context(edit.applied(plan.model))
    except DenoscopeError as error:
        return {"reason": " ".join(str(error).split()), "seconds": time.perf_counter() - start}
    return {"reason": None, "seconds": seconds, **touched(plan, edit)}


def touched(plan: Plan, edit: Edit) -> dict[str, Any]:
    """How many numbers an edit touches, and what share of the model's they are."""
    every = sum(p.numel() for part in plan.model.components.values() for p in part.parameters())
    return {"weights": edit.size(), "share": edit.size() / every}


def painted(painter: Painter, known: Clean, seeds: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Paint the texts with the model as it is now, and measure."""
    probes = known.probes
    made = painter.now([probes[i].prompt for i in known.own], seeds)
    pixels = torch.stack([made[known.same[p.prompt]] for p in probes])
    after = judge(painter.plan.judge, probes, pixels)
    moved = (shown(pixels) - shown(known.before)).abs().mean((-3, -2, -1))
    x, y = (None if f is None else f[known.own] for f in (after.features, known.oracle.features))
    tensors = {**after.tensors(), "moved": moved, "pictures": pixels[:, 0]}
    return tensors, distances(x, y)
