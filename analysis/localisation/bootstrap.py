"""Resampling of crossed repetitions, for numbers that are no means: times, rank correlations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...models.errors import UsageError
from ..scores import UNITS

Array = NDArray[np.float64]


def check_resampling(level: float, n_resamples: int) -> None:
    """Raise ValueError for a level or a number of resamples that makes no interval."""
    if not 0 < level < 1:
        raise UsageError(f"level is {level}; it lies between 0 and 1, like 0.95")
    if not 1 <= n_resamples <= 10**6:
        raise UsageError(f"n_resamples is {n_resamples}; it is a number from 1 to 1,000,000")


def resamples(dims: dict[str, int], n: int, seed: int) -> Iterator[dict[str, xr.DataArray]]:
    """Yield draws with replacement, each dimension on its own, for ``isel``: the crossed bootstrap.

    Prompts are drawn, and seeds are drawn, and all values of what was drawn are taken: the pigeonhole
    bootstrap (Owen 2007).

    Args:
        dims: sizes of the dimensions of repetition.
        n: how many draws.
        seed: of the draws, from 0 up.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; it is a whole number from 0 up")
    source = np.random.default_rng(seed)
    for _ in range(n):
        yield {d: xr.DataArray(source.integers(size, size=size), dims=d) for d, size in dims.items()}


def repeated(values: xr.DataArray) -> dict[str, int]:
    """Return the dimensions of repetition of which there is more than one value, with their sizes."""
    return {d: values.sizes[d] for d in UNITS if values.sizes.get(d, 1) > 1}


def quantiles(found: Array, level: float) -> tuple[Array, Array]:
    """Return the limits of the middle part of resampled numbers [resample, ...]; NaN stays NaN."""
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
