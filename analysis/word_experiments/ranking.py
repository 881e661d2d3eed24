"""Spearman's rank correlation, and how well it is known."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..localisation.bootstrap import check_resampling, quantiles

Array: TypeAlias = NDArray[np.float64]


def rank_correlation(x: Array, y: Array) -> Array:
    """Return Spearman's rank correlation over the last axis; ties share ranks, what has no order is NaN.

    >>> float(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])))
    0.5
    """
    a, b = (rankdata(v, axis=-1) for v in (x, y))
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    found: Array = np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)
    return found


def resampled_correlation(
    x: Array, y: Array, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return a rank correlation over units and its percentile interval, from units drawn with replacement.

    Draws in which all units came out alike have no order and count as 0: where one unit carries all there is,
    many draws miss it.

    Args:
        x: one number for each unit.
        y: the other number.
        level: how often such intervals hold the true correlation.
        n_resamples: how many draws.
        seed: of the draws; the same for all measures, so that they can be compared.

    Raises:
        ValueError: for a level or a number of draws that makes no interval.
    """
    check_resampling(level, n_resamples)
    drawn = np.random.default_rng(seed).integers(len(x), size=(n_resamples, len(x)))
    rho, spread = float(rank_correlation(x, y)), rank_correlation(x[drawn], y[drawn])
    if len(x) < 3 or np.isnan(rho):
        return rho, float("nan"), float("nan")
    low, high = quantiles(np.nan_to_num(spread), level)
    return rho, float(low), float(high)
