"""Runs in which directions act, and what they score: shared by calibrating, scoring and evaluating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import When
from ...models.run.sampling import SamplingOptions
from ...probes.direction import Direction
from ...probes.intervene import Intervention
from ...probes.sweep.sweeping import SweepRun, sweep
from ..mediation.runs import check_each_once
from ..metrics import Metric, Outcome, measure


def steering(
    direction: Direction, strength: float, subject: str | None = None, when: When = When()
) -> tuple[Intervention, ...]:
    """Return what steers by a direction at all its sites; nothing for strength 0."""
    if strength == 0:
        return ()
    told = direction if direction.rows is None or subject is None else direction.of(subject)
    return tuple(part.steer(strength, when) for part in told)


@dataclass(frozen=True, eq=False)
class Ground:
    """What is painted, and how.

    Args:
        model: an opened model.
        prompts: texts.
        subjects: of each prompt, for directions of a subject's rows.
        seeds: each prompt runs with each.
        metrics: by name; their clean run is the plain one.
        batch: samples in one batch.
        settings: how it is sampled.
        progress: called with (done, total, what).

    Raises:
        ValueError: for prompts or seeds that repeat, and subjects that do not fit.
    """

    model: Model
    prompts: Sequence[str]
    subjects: Sequence[str | None]
    seeds: Sequence[int]
    metrics: Mapping[str, Metric]
    batch: int
    settings: SamplingOptions
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_each_once("prompts", self.prompts)
        check_each_once("seeds", self.seeds)
        if not self.metrics:
            raise UsageError("there is no metric; give at least one")

    def acting(self, direction: Direction, strength: float, when: When) -> list[tuple[Intervention, ...]]:
        """What steers each prompt."""
        return [steering(direction, strength, s, when) for s in self.subjects]

    def paint(self, ways: Mapping[str, Sequence[tuple[Intervention, ...] | str]]) -> Tensor:
        """Return final latents [way, prompt, seed, ...]; a way is what acts, or texts, one a prompt."""
        runs: list[SweepRun] = []
        for each in ways.values():
            for prompt, given in zip(self.prompts, each, strict=True):
                one = (given, ()) if isinstance(given, str) else (prompt, given)
                runs += [SweepRun(one[0], seed, one[1]) for seed in self.seeds]
        made = sweep(self.model, runs, batch=self.batch, progress=self.progress, **self.settings)
        latents: Tensor = made.latents.unflatten(0, (len(ways), len(self.prompts), len(self.seeds)))
        return latents

    @torch.no_grad()
    def score(self, latents: Tensor, plain: Tensor) -> xr.DataArray:
        """Return what all metrics say of latents [way, prompt, seed, ...], [way, metric, prompt, seed]."""
        read: list[Prompt] = self.model.encode(list(self.prompts))
        n, m = len(self.prompts), len(self.seeds)
        prompts = [p for _ in range(len(latents)) for p in read for _ in range(m)]
        flat = latents.flatten(0, 2)
        clean = plain[None].expand(len(latents), *plain.shape).flatten(0, 2)
        found = []
        for some in batches(len(flat), self.batch):
            outcome = Outcome(flat[some], tuple(prompts[some]), self.model.decode, clean[some])
            found.append(torch.stack([measure(f, outcome).double().cpu() for f in self.metrics.values()]))
        values = torch.cat(found, 1).unflatten(1, (len(latents), n, m)).transpose(0, 1).numpy()
        coords: dict[str, Any] = {
            "metric": list(self.metrics),
            "prompt": list(self.prompts),
            "seed": list(self.seeds),
        }
        return xr.DataArray(values, coords, ("way", "metric", "prompt", "seed"))


def each_subject_or_none(
    prompts: Sequence[str], subject: str | Sequence[str] | None, *directions: Direction
) -> list[str | None]:
    """Return the subject of each prompt; None where directions act at all rows alike, or know theirs.

    Raises:
        ValueError: if there is none where one is needed, or not one a prompt.
    """
    if subject is None:
        if any(
            d.rows is not None and "subject" in d.rows.kinds and d.rows.subject is None for d in directions
        ):
            raise UsageError(
                f"whose attribute in {prompts[0]!r} is meant was not said; give subject='cook', or one a "
                "prompt"
            )
        return [None] * len(prompts)
    subjects = [subject] * len(prompts) if isinstance(subject, str) else list(subject)
    if len(subjects) != len(prompts):
        raise UsageError(f"{len(subjects)} subjects for {len(prompts)} prompts; give one, or one a prompt")
    return list(subjects)


def slope(values: xr.DataArray) -> xr.DataArray:
    """Return how much a metric changes for strength 1, [..., prompt, seed]: the line through strength 0."""
    s = values["strength"]
    moved = values - values.sel(strength=0.0)
    found: xr.DataArray = (moved * s).sum("strength") / float((s**2).sum())
    return found


def spearman(values: xr.DataArray) -> xr.DataArray:
    """Return the rank correlation of strength and metric, [..., prompt, seed]; 0 where nothing moves."""
    from scipy.stats import rankdata  # noqa: PLC0415  # slow to import

    axis = values.get_axis_num("strength")
    ranks = rankdata(values.values, axis=axis)
    order = rankdata(values["strength"].values)
    a = np.moveaxis(ranks, axis, -1) - ranks.mean(axis)[..., None]
    b = order - order.mean()
    below = np.sqrt((a**2).sum(-1) * (b**2).sum())
    rho = np.divide((a * b).sum(-1), below, out=np.zeros_like(below), where=below > 0)
    return values.isel(strength=0, drop=True).copy(data=rho)
