"""Scores of many finished runs of one prompt, and their shares of a whole change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ..metrics import Metric, Outcome, measure
from ..scores import Scores
from .bootstrap import Array


def score_runs(
    model: Model, metric: Metric, latents: Tensor, prompt: Prompt, *, seeds: int, batch: int
) -> Array:
    """Score runs of one prompt, seeds innermost, of which the first are plain; in batches.

    Returns:
        [run, seed].
    """
    clean = latents[:seeds].repeat(len(latents) // seeds, *[1] * (latents.ndim - 1))
    size = min(batch, len(latents))
    parts = zip(latents.split(size), clean.split(size), strict=True)
    outcomes = (Outcome(x, (prompt,) * len(x), model.decode, c) for x, c in parts)
    scores = torch.cat([measure(metric, o).double().cpu() for o in outcomes])
    found: Array = scores.reshape(-1, seeds).numpy()
    return found


def score_prompts(
    model: Model, metric: Metric, latents: Tensor, prompts: Sequence[Prompt], *, batch: int
) -> Array:
    """Score runs [run, prompt, seed, ...] of several prompts, of which the first are plain; in batches.

    Returns:
        [run, prompt, seed].
    """
    each = [
        score_runs(model, metric, latents[:, i].flatten(0, 1), p, seeds=latents.shape[2], batch=batch)
        for i, p in enumerate(prompts)
    ]
    return np.stack(each, 1)


def shares(effect: xr.DataArray, total: xr.DataArray, what: str) -> Scores:
    """Return effects as shares of the total effect.

    Raises:
        ValueError: if there is no total effect.
    """
    if float(total.mean()) == 0 or not np.isfinite(total).all():
        raise UsageError(
            f"{what} left the mean of {effect.attrs['metric']} as it was, so there is no total effect to "
            "take a share of; change more, or use another metric"
        )
    return Scores(effect, total)
