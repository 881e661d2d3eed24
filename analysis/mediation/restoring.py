"""How restored activations come to a run of the denoiser: kept, or copied from a row beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch

from ...models.errors import UsageError
from ...models.run.context import When
from ...models.site import Site
from ...models.sites import site_shapes
from ...models.text.prompt import Prompt
from ...probes.intervene import Intervention, Spec
from ...probes.sweep.sweeping import SweepRun
from ...probes.trace import Trace, trace
from .choice import Piece
from .runs import CausalExperiment, Restore, Restored

log = logging.getLogger("denoscope")

MEMORY = 4 * 2**30
"""Bytes of a clean run's activations that are kept; where they are more, it runs in lock-step."""


@dataclass(frozen=True)
class Plan:
    """What is restored: groups of sites, each in all pieces; and whether to block them too."""

    groups: Sequence[Sequence[Site]]
    cuts: Sequence[Piece]
    direct: bool

    @property
    def told(self) -> dict[str, Any]:
        """All of it, as JSON."""
        groups = [list(map(str, group)) for group in self.groups]
        return {"groups": groups, "pieces": [cut.told for cut in self.cuts], "direct": self.direct}

    @property
    def steps(self) -> list[int] | None:
        """At which steps something is restored; None is all."""
        windows = [cut.when.steps for cut in self.cuts]
        return None if None in windows else sorted({i for steps in windows for i in steps or ()})

    @property
    def sites(self) -> list[Site]:
        """All sites that are restored, each once."""
        return list(dict.fromkeys(site for group in self.groups for site in group))

    @property
    def places(self) -> list[tuple[Sequence[Site], Piece]]:
        """All places, sites first."""
        return [(group, cut) for group in self.groups for cut in self.cuts]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to restore.

    Args:
        restore: from a prompt's index and a seed to its restored runs.
        counted: the same without running anything.
        kept: bytes of activations that are kept of one prompt and seed.
        told: what results and keys say of it.
    """

    restore: Restore
    counted: Restore
    kept: int
    told: dict[str, Any]


def chosen_way(experiment: CausalExperiment, plan: Plan, source: str, memory: int) -> Way:
    """Return how activations come to the restored runs; lock-step is announced.

    Raises:
        UsageError: for a source that there is not, and a memory below 0.
    """
    if source not in ("trajectory", "in_place"):
        raise UsageError(f"source is {source!r}; it is 'trajectory' (the clean run) or 'in_place'")
    if memory < 0:
        raise UsageError(f"memory is {memory}; it is a number of bytes, 0 to keep nothing")
    ways = (_in_place, _in_lockstep, _from_trajectory, _standing_in)
    in_place, in_lockstep, stored, counted = (partial(way, experiment, plan) for way in ways)
    if source == "in_place":
        return Way(in_place, in_place, 0, {"source": source})
    kept = _kept(experiment, plan)
    if kept <= memory:
        return Way(stored, counted, kept, {"source": source})
    log.warning(
        "the clean run's activations are %.3g MB, more than memory=%.3g MB: it runs in lock-step, as one "
        "more row of each batch, and nothing is kept", kept / 1e6, memory / 1e6,
    )  # fmt: skip
    return Way(in_lockstep, in_lockstep, 0, {"source": source, "clean_run": "in lock-step"})


def _kept(experiment: CausalExperiment, plan: Plan) -> int:
    """Bytes of the activations of one prompt and seed."""
    model, shapes = experiment.model, site_shapes(experiment.model)
    n_steps = len(model.steps(experiment.settings["steps"]) if plan.steps is None else plan.steps)
    runs = 1 + (experiment.corruption.draws if plan.direct else 0)
    numbers = sum(prod(shapes.get(site, (0,))) for site in plan.sites)
    return numbers * model.dtype.itemsize * n_steps * runs


def _from_trajectory(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """Activations of the clean run, made once; the largest memory is that of one sample's run."""
    settings = {k: experiment.settings[k] for k in ("steps", "guidance")}
    how = {"sites": plan.sites, "when": When(plan.steps), **settings}

    def run(prompt: Prompt) -> Trace:
        return trace(experiment.model, [prompt], seeds=[seed], **how)

    def put(values: Trace) -> list[tuple[Intervention, ...]]:
        return [tuple(cut.patch(site, values) for site in group) for group, cut in plan.places]

    clean, corrupted = run(experiment.clean[p]), experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, patches) for prompt in corrupted] for patches in put(clean)]
    if not plan.direct:
        return Restored(runs, clean.latents[0], experiment.rows_per_run)
    each = zip(*(put(run(prompt)) for prompt in corrupted), strict=True)
    blocked = [[SweepRun(experiment.clean[p], seed, patches) for patches in draws] for draws in each]
    return Restored(runs, clean.latents[0], (1 + len(corrupted)) * experiment.rows_per_run, blocked)


def _standing_in(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """The same runs, with what puts nothing in place: for counting, no clean run is made."""

    def put(draw: int) -> list[tuple[Intervention, ...]]:
        return [
            tuple(
                Intervention(site, lambda *_: None, cut.when, Spec("nothing", {"place": n, "draw": draw}))
                for site in group
            )
            for n, (group, cut) in enumerate(plan.places)
        ]

    clean, corrupted = experiment.clean[p], experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, patches) for prompt in corrupted] for patches in put(0)]
    each = zip(*map(put, range(1, 1 + len(corrupted))), strict=True)
    blocked = [[SweepRun(clean, seed, patches) for patches in draws] for draws in each if plan.direct]
    traced = 1 + len(corrupted) if plan.direct else 1
    return Restored(runs, torch.zeros(()), traced * experiment.rows_per_run, blocked)


def _in_lockstep(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """Beside the runs of a batch the other prompt's own run, once."""
    return _beside(experiment, plan, p, seed, [() for _ in plan.places], shared=True)


def _in_place(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """Beside each run the other prompt, shown the run's own latents at each step."""
    entry = experiment.model.input_site
    shown = [(Piece(cut.when).copied(entry, 0, 1),) for _, cut in plan.places]
    return _beside(experiment, plan, p, seed, shown, shared=False)


def _beside(  # noqa: PLR0917  # one prompt and seed of a plan
    experiment: CausalExperiment,
    plan: Plan,
    p: int,
    seed: int,
    shown: Sequence[tuple[Intervention, ...]],
    shared: bool,
) -> Restored:
    """Runs (row 0) that are given what the other prompt (row 1) has at the same moment."""
    copied = ([cut.copied(site, 1, 0) for site in group] for group, cut in plan.places)
    put = [(*first, *then) for first, then in zip(shown, copied, strict=True)]
    clean, corrupted = experiment.clean[p], experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, i, (clean,), shared) for prompt in corrupted] for i in put]
    blocked = [[SweepRun(clean, seed, i, (prompt,), shared) for prompt in corrupted] for i in put]
    return Restored(runs, blocked=blocked if plan.direct else ())
