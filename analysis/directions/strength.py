"""Strength in units of what it does: a direction as long as it takes to move a score by one unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import When
from ...models.run.sampling import SamplingOptions
from ...probes.direction import Direction
from ..intervals import interval
from ..metrics import Metric
from .measuring import Ground, each_subject_or_none, slope


@checked
def calibrated(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    direction: Direction,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    unit: float = 1.0,
    subject: str | Sequence[str] | None = None,
    strengths: Sequence[float] = (-1.0, -0.5, 0.5, 1.0),
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Direction:
    """Return the direction as long as strength 1 raises a metric by one unit, in the mean.

    Directions have no common length: equal lengths do different amounts. A unit is one logit of a judge,
    ``metrics.judge_log_odds(...)`` with ``unit=1``; without such a judge 0.1 of a CLIP score. The effect is
    the line through strength 0; ``about["effect"]`` tells it, and its interval, for the direction that was
    given. One that lowers the metric is turned around.

    Args:
        model: an opened model.
        direction: what is calibrated.
        prompts: texts, each once.
        seeds: each prompt runs with each.
        metric: what is to rise.
        unit: by how much.
        subject: for directions of a subject's rows: of all prompts, or one for each.
        strengths: that are tried, in lengths of the direction that was given.
        when: which steps and which branch.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: if the effect may be none (its 95 % interval holds 0), for strengths that are none, and
            units that are not above 0.
        LookupError: for a subject that is not in its prompt.
    """
    if not strengths or not all(math.isfinite(s) and s for s in strengths) or not 0 < unit < math.inf:
        raise UsageError(f"strengths are {list(strengths)} and unit is {unit}; give finite ones other than 0")
    subjects = each_subject_or_none(prompts, subject, direction)
    ground = Ground(model, prompts, subjects, seeds, {"metric": metric}, batch, settings, progress)
    tried = [0.0, *dict.fromkeys(strengths)]
    latents = ground.paint({str(s): ground.acting(direction, s, when) for s in tried})
    scores = ground.score(latents, latents[0]).rename(way="strength").assign_coords(strength=tried)
    effect = interval(slope(scores.isel(metric=0, drop=True)), ["prompt", "seed"])
    mean, low, high = (float(effect[k]) for k in ("mean", "low", "high"))
    name = getattr(metric, "__name__", repr(metric))
    if not (low > 0 or high < 0):
        raise UsageError(
            f"strength 1 changes {name} by {mean:.3g} [{low:.3g}, {high:.3g}], which may be nothing: there "
            "is no "
            "unit of that; try other strengths, more samples, or another direction"
        )
    told = {"metric": name, "mean": mean, "low": low, "high": high}
    return (unit / mean * direction).noted(effect=told, unit={"metric": name, "size": unit})
