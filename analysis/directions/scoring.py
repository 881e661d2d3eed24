"""What a direction detects, and what it steers: two numbers, which need not agree.

A direction may tell two classes apart and do nothing when it is added, or the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.arguments import batches, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.html import panel, table
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.run.sampling import SamplingOptions
from ...probes.direction import Direction
from ...probes.directions.along import Along
from ...probes.directions.moments import check_pairs
from ...probes.intervene import Intervention
from ...probes.trace import trace
from ..intervals import interval
from ..localisation.bootstrap import quantiles
from ..metrics import Metric
from .measuring import Ground, each_subject_or_none, steering

Array = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class DirectionScore:
    """Both numbers of a direction, each with a 95 % interval.

    Args:
        auc: how often a positive sample lies further along the direction than a negative one; .5 is chance.
        auc_low: lower bound, by drawing pairs and seeds anew.
        auc_high: upper bound.
        effect: how much strength 1 changes the metric of the negative prompts.
        effect_low: lower bound.
        effect_high: upper bound.
        natural: how much higher the metric is for the positive prompts.
        metric: which it is.
        samples: how many of each class.
    """

    auc: float
    auc_low: float
    auc_high: float
    effect: float
    effect_low: float
    effect_high: float
    natural: float
    metric: str
    samples: int

    def plot(self) -> Figure:
        """Return both numbers as bars with intervals, ``analysis.plots.effect_bars``; .5 detects nothing."""
        frame = self.to_frame().assign(
            measure=["detects (AUC)", f"steers ({self.metric})"], when="the direction"
        )
        rows = [
            ("detects (AUC)", "by chance", 0.5),
            (f"steers ({self.metric})", "other prompts", self.natural),
        ]
        beside = pd.DataFrame(rows, columns=["measure", "when", "mean"])
        return figure("effect_bars", pd.concat([frame, beside.assign(low=np.nan, high=np.nan)]))

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(
            f"DirectionScore({self.metric}; {self.samples} of each class)",
            table(["", *frame.columns], frame.itertuples()),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table of two rows: ``detects`` and ``steers``."""
        rows = [(self.auc, self.auc_low, self.auc_high), (self.effect, self.effect_low, self.effect_high)]
        return pd.DataFrame(rows, ["detects", "steers"], ["mean", "low", "high"])


@checked
def score_direction(  # type: ignore[misc]  # noqa: PLR0913  # its "negative" are prompts of a class
    model: Model,
    direction: Direction,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    subject: str | Sequence[str] | None = None,
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> DirectionScore:
    """Say what a direction detects (AUC of projections) and what it steers (effect of strength 1).

    Give pairs and seeds that it was not found with. A projection is the mean of ``x·v / |v|`` over places and
    steps, summed over the direction's sites.

    Args:
        model: an opened model.
        direction: of any origin.
        positive: prompts with the attribute.
        negative: the same without it, one for each; these are steered.
        seeds: each prompt runs with each.
        metric: what is to change.
        subject: for directions of a subject's rows: of all pairs, or one for each.
        when: at which steps, and in which branch, it is read and added.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for prompts that do not pair, steps outside the run, and directions that do not fit the
            model.
        LookupError: for sites and subjects that are not there.
    """
    check_pairs(positive, negative)
    subjects = each_subject_or_none(negative, subject, direction)
    how: Any = settings  # mypy takes it for a plain dict, for "negative" is a parameter here
    ground = Ground(model, negative, subjects, seeds, {"metric": metric}, batch, how, progress)
    along = _projections(ground, direction, positive, when)
    steered = ground.acting(direction, 1.0, when)
    latents = ground.paint({"plain": [()] * len(negative), "steered": steered, "positive": list(positive)})
    scores = ground.score(latents, latents[0]).isel(metric=0, drop=True)
    effect = interval(scores[1] - scores[0], ["prompt", "seed"])
    low, high = _resampled(along)
    return DirectionScore(
        auc(along[0], along[1]),
        low,
        high,
        float(effect["mean"]),
        float(effect["low"]),
        float(effect["high"]),
        float((scores[2] - scores[0]).mean()),
        getattr(metric, "__name__", repr(metric)),
        len(negative) * len(seeds),
    )


def auc(positive: Array, negative: Array) -> float:
    """Return how often a positive number is above a negative one; ties count half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    a, b = positive.reshape(-1, 1), negative.reshape(1, -1)
    return float((a > b).mean() + (a == b).mean() / 2)


def _resampled(along: Array) -> tuple[float, float]:
    """Limits of the AUC of projections [class, pair, seed] when pairs and seeds are drawn anew."""
    source, (_, n, m) = np.random.default_rng(0), along.shape
    found = []
    for _ in range(RESAMPLES):
        some = along[:, source.integers(n, size=n)][:, :, source.integers(m, size=m)]
        found.append(auc(some[0], some[1]))
    low, high = quantiles(np.array(found), 0.95)
    return float(low), float(high)


def _projections(ground: Ground, direction: Direction, positive: Sequence[str], when: When) -> Array:
    """How far each sample lies along the direction, [class, pair, seed]."""
    m = len(ground.seeds)
    texts = [t for some in (positive, ground.prompts) for t in some for _ in range(m)]
    whose = [s for _ in range(2) for s in ground.subjects for _ in range(m)]
    seeds = [*ground.seeds] * (2 * len(positive))
    found = torch.zeros(len(texts), dtype=torch.float64)
    for some in batches(len(texts), ground.batch):
        into, own = found[some], whose[some]
        meters = [
            _Meter(part, into)
            for subject in dict.fromkeys(own)
            for part in steering(direction, 1.0, subject, replace(when, rows=_rows(own, subject)))
        ]
        trace(
            ground.model,
            texts[some],
            seeds=seeds[some],
            interventions=[m for meter in meters for m in meter.parts(ground.model)],
            **ground.settings,
        )
    shape = (2, len(positive), m)
    values: Array = found.view(shape).numpy()
    return values


def _rows(whose: Sequence[str | None], subject: str | None) -> tuple[int, ...]:
    return tuple(i for i, s in enumerate(whose) if s == subject)


@dataclass(frozen=True)
class _Meter:
    """Adds up how far samples lie along what a steering would add."""

    moving: Intervention
    into: Tensor

    def parts(self, model: Model) -> list[Intervention]:
        made = []
        for acting in self.moving.parts(model):
            along: Along = acting.fn.along  # type: ignore[attr-defined]

            def fn(x: Tensor, context: CallContext, along: Along = along) -> None:
                self.into[list(context.samples)] += along.mean_component(x, context).double().cpu()

            made.append(Intervention(acting.site, fn, acting.when))
        return made
