"""Bootstrap confidence intervals over named dimensions: prompts, seeds, noise draws."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import xarray as xr

from ..models.errors import NotFoundError, UsageError
from ..models.suggest import near

_RESAMPLE = "bootstrap"


def bootstrap(
    values: xr.DataArray,
    over: Sequence[str],
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    *,
    denominator: xr.DataArray | None = None,
) -> xr.Dataset:
    """Return the mean over some dimensions with a percentile bootstrap interval (Efron 1979).

    Prompts and seeds are crossed (each prompt runs with each seed), so each dimension is resampled on its
    own and the resamples are combined: the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics
    1(2)), which errs to the wide side. With one value in a dimension, that dimension adds nothing to the
    interval: it then speaks of this one prompt (or seed) only. With few values, intervals are narrower than
    they should be.

    Args:
        values: one value for each unit.
        over: the dimensions to average over and to resample.
        level: proportion of bootstrap means inside the interval.
        n_resamples: number of bootstrap samples.
        seed: of the resampling.
        denominator: if given, the result is ``mean(values) / mean(denominator)``, both resampled alike: a
            ratio of means.

    Returns:
        ``mean``, ``low`` and ``high`` over the remaining dimensions. With a single unit there is no interval:
        low and high are NaN.

    Raises:
        LookupError: for a dimension that the values do not have.
        ValueError: for no values, no dimension, or a level or number of resamples that makes no interval.

    >>> got = bootstrap(xr.DataArray([1.0, 2.0, 3.0], dims="seed"), ["seed"])
    >>> float(got["mean"]), bool(got["low"] < 2 < got["high"])
    (2.0, True)
    """
    dims = _check(values, over, level, n_resamples)
    mean = values.mean(dims) if denominator is None else values.mean(dims) / denominator.mean(dims)
    if all(values.sizes[d] == 1 for d in dims):
        low = high = xr.full_like(mean, np.nan)
    else:
        weights = _weights(values, dims, n_resamples, seed)
        means = _resampled(values, weights)
        if denominator is not None:
            means = means / _resampled(denominator, weights)
        tail = (1 - level) / 2
        low, high = (means.quantile(q, _RESAMPLE).drop_vars("quantile") for q in (tail, 1 - tail))
    about = {"level": level, "over": ", ".join(dims), "n_resamples": n_resamples, "seed": seed}
    return xr.Dataset({"mean": mean, "low": low, "high": high}, attrs=about)


def proportion(
    values: xr.DataArray, over: Sequence[str], level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Return the proportion of ones among zeros and ones, with an interval that never claims too much.

    When all answers agree, so does every bootstrap sample, and its interval has no width. So this one is
    at least as wide as Wilson's (1927) for as many independent answers.

    Args:
        values: zeros and ones.
        over: the dimensions to average over and to resample.
        level: of the interval.
        n_resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        LookupError: for a dimension that the values do not have.
        ValueError: for values other than 0 and 1, and what ``bootstrap`` refuses.

    >>> got = proportion(xr.DataArray([1.0, 1.0, 1.0, 1.0], dims="seed"), ["seed"])
    >>> round(float(got["low"]), 2), float(got["high"])
    (0.51, 1.0)
    """
    if not bool(values.isin((0, 1)).all()):
        raise UsageError("a proportion is of zeros and ones; these values hold others: use bootstrap")
    found = bootstrap(values, over, level, n_resamples, seed)
    n, mean = values.size // found["mean"].size, found["mean"]
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    # the minimum and maximum with the mean only mend rounding; NaN (no interval) stays NaN
    low = np.minimum(np.minimum(found["low"], middle - half), mean)
    high = np.maximum(np.maximum(found["high"], middle + half), mean)
    return found.assign(low=low.clip(0, 1), high=high.clip(0, 1))


def _check(values: xr.DataArray, over: Sequence[str], level: float, n_resamples: int) -> list[str]:
    dims = [over] if isinstance(over, str) else list(dict.fromkeys(over))
    for dim in dims:
        if dim not in values.dims:
            raise NotFoundError(f"the values have no dimension {dim!r}; {near(dim, map(str, values.dims))}")
    if not dims or not values.size:
        raise UsageError(f"there is nothing to average: values of shape {dict(values.sizes)}, over {dims}")
    if not 0 < level < 1:
        raise UsageError(f"level is {level}; it lies between 0 and 1, like 0.95")
    if n_resamples < 1:
        raise UsageError(
            f"n_resamples is {n_resamples}; an interval needs at least 1, and is steady from about 1000"
        )
    return dims


def _weights(values: xr.DataArray, dims: Sequence[str], n_resamples: int, seed: int) -> list[xr.DataArray]:
    """For each dimension: how often each of its values is drawn, as proportions [resample, value]."""
    random = np.random.default_rng(seed)
    found = []
    for dim in dims:
        n = values.sizes[dim]
        counts = random.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        found.append(xr.DataArray(counts / n, dims=(_RESAMPLE, dim)))
    return found


def _resampled(values: xr.DataArray, weights: Sequence[xr.DataArray]) -> xr.DataArray:
    """Weighted means [..., resample]; one dimension at a time keeps memory small."""
    for weight in weights:
        dim = str(weight.dims[1])
        values = xr.dot(values, weight, dim=dim) if dim in values.dims else values
    return values
