"""From trials to tables: a row for each edit, for each picture, for each lot of many edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .concept import GENERALITY, STILL, Aim, Concept, drawn
from .judgement import distances
from .methods import Method
from .planning import Plan
from .result import CELLS, DISTANCES, MANY, PICTURES, EditBenchmark, Strip
from .trial import Clean, Seen, Tried

GROUPS: dict[str, tuple[Aim, ...]] = {
    "efficacy": ("efficacy",),
    "generality": GENERALITY,
    "neighbours": ("neighbour",),
    "bystanders": ("bystander",),
}
IN_GRID = 2
"""Concepts of each kind whose pictures are on the page."""


@dataclass(eq=False)
class Collected:
    """What was found so far."""

    plan: Plan
    able: dict[str, list[Concept]] = field(init=False)
    cells: list[tuple[Any, ...]] = field(default_factory=list, init=False)
    pictures: list[tuple[Any, ...]] = field(default_factory=list, init=False)
    many: list[tuple[Any, ...]] = field(default_factory=list, init=False)
    features: dict[str, list[tuple[Tensor, Tensor]]] = field(init=False)
    strips: dict[str, Strip] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.able = {m.name: [] for m in self.plan.methods}
        self.features = {m.name: [] for m in self.plan.methods}
        kinds = dict.fromkeys(c.kind for c in self.plan.concepts)
        some = [c for k in kinds for c in drawn([c for c in self.plan.concepts if c.kind == k], IN_GRID)]
        self._shown = {c.name for c in some}

    def add(self, method: Method, concept: Concept, made: Tried, known: Callable[[], Clean]) -> None:
        """Take what came of one edit, and, if there is one, what the unedited model paints."""
        about, seen = made.about, made.seen
        row = (method.name, concept.name, concept.kind, about["reason"], about["seconds"])
        if seen is None:
            self.cells.append((*row, *[None] * (len(CELLS) - len(row))))
            return
        base = known()
        self.able[method.name].append(concept)
        found = dict(_means(seen, base))
        self.cells.append((*row, about["weights"], about["share"], about["kid"], *found.values()))
        self.pictures += _pictures(self.plan, method, concept, seen, base)
        if seen.after.features is not None and base.oracle.features is not None:
            first, second = (f[base.own].flatten(0, 1) for f in (seen.after.features, base.oracle.features))
            self.features[method.name].append((first, second))
        if concept.name in self._shown:
            self._strip(method, concept, seen, base)

    def refused(self, method: Method, n: int, orders: Sequence[str]) -> None:
        """Tell that a method takes too few of the requests."""
        able, every = len(self.able[method.name]), len(self.plan.concepts)
        reason = f"it takes {able} of the {every} requests; {n} are needed"
        for order in orders:
            self.many.append((method.name, n, order, reason, 0, *[None] * (len(MANY) - 5)))

    def add_many(self, method: Method, n: int, order: str, made: Tried, known: Callable[[], Clean]) -> None:
        """Take what came of many edits."""
        about = made.about
        row = (method.name, n, order, about["reason"], about["made"], about["seconds"])
        if made.seen is None:
            self.many.append((*row, *[None] * (len(MANY) - len(row))))
            return
        found = dict(_means(made.seen, known()))
        kept = [found[name] for name in MANY[7:]]
        self.many.append((*row, about["kid"], *kept))

    def result(self) -> EditBenchmark:
        """All of it."""
        far = []
        for name, pairs in self.features.items():
            x, y = (torch.cat([p[i] for p in pairs]) if pairs else None for i in (0, 1))
            found = distances(x, y)
            far.append((name, 0 if x is None else len(x), found["fid"], found["kid"]))
        return EditBenchmark(
            self.plan.told(),
            pd.DataFrame(self.cells, columns=list(CELLS)),
            pd.DataFrame(self.pictures, columns=list(PICTURES)),
            pd.DataFrame(self.many, columns=list(MANY)),
            pd.DataFrame(far, columns=list(DISTANCES)),
            tuple(self.strips.values()),
        )

    def _strip(self, method: Method, concept: Concept, seen: Seen, base: Clean) -> None:
        """Pictures of the first seed: the edited wording, and a neighbour."""
        at = [i for i, p in enumerate(base.probes) if p.aim in ("efficacy", "neighbour")]
        for i in at[:2]:
            probe = base.probes[i]
            name = f"{concept.name}: {probe.prompt}"
            if name not in self.strips:
                first = {"unedited": base.before[i, 0]}
                first |= {} if probe.aim in STILL else {"asked outright": base.outright[i, 0]}
                self.strips[name] = Strip(concept.name, probe.prompt, probe.wanted, first)
            self.strips[name].pictures[method.name] = seen.pictures[i]


def _means(seen: Seen, base: Clean) -> Iterator[tuple[str, float | None]]:
    """Means over texts and seeds, in the order of the columns."""
    for name, aims in GROUPS.items():
        at = [i for i, p in enumerate(base.probes) if p.aim in aims]
        for state, said in (("before", base.said), ("after", seen.after), ("oracle", base.oracle)):
            yield f"{name}_{state}", _mean(said.shown[at]) if at else None
    at = [i for i, p in enumerate(base.probes) if p.aim in STILL]
    for state, said in (("before", base.said), ("after", seen.after)):
        yield f"fit_still_{state}", _mean(said.fit[at]) if at else None
    yield "drift", _mean(seen.moved[at]) if at else None


def _mean(x: Tensor) -> float | None:
    found = float(x.double().mean())
    return None if math.isnan(found) else found


def _pictures(
    plan: Plan, method: Method, concept: Concept, seen: Seen, base: Clean
) -> Iterator[tuple[Any, ...]]:
    states = (base.said, seen.after, base.oracle)
    for i, probe in enumerate(base.probes):
        row = method.name, concept.name, concept.kind, probe.aim, probe.prompt, probe.wanted
        for s, seed in enumerate(plan.seeds):
            told = [float(x[i, s]) for said in states for x in (said.shown, said.fit)]
            yield (*row, seed, *told, float(seen.moved[i, s]))
