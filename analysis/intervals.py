"""Confidence intervals of means over crossed dimensions: prompts, seeds, noise draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..models.arguments import checked
from ..models.errors import NotFoundError, UsageError
from ..models.suggest import near

Array = NDArray[np.float64]


@checked
def interval(
    values: xr.DataArray, over: Sequence[str], level: float = 0.95, *, denominator: xr.DataArray | None = None
) -> xr.Dataset:
    """Return the mean over some dimensions with a t interval for crossed random effects.

    Each prompt runs with each seed, so values that share a prompt or a seed are not independent, and the
    variance of the mean is that of all main effects and interactions: the method of moments on their mean
    squares, (MS_prompt + MS_seed - MS_rest) / n for two dimensions, never below that of one dimension alone
    (Searle, Casella & McCulloch 1992, chapter 4). Degrees of freedom are Satterthwaite's (1946). With one
    value in a dimension that dimension adds nothing: the interval then speaks of this one prompt (or seed)
    alone. How often it holds the truth: docs/mediation.md, by simulation.

    Args:
        values: one value for each unit.
        over: the dimensions to average over, taken as random samples.
        level: how often such intervals hold the true mean.
        denominator: if given, the result is ``mean(values) / mean(denominator)``, a ratio of means; its
            interval is by linearisation (Cochran 1977, section 6.4).

    Returns:
        ``mean``, ``low`` and ``high`` over the remaining dimensions. With a single unit there is no interval:
        low and high are NaN. A value that is NaN makes all three NaN.

    Raises:
        LookupError: for a dimension that the values do not have.
        ValueError: for no values, no dimension, or a level that makes no interval.

    >>> got = interval(xr.DataArray([1.0, 2.0, 3.0], dims="seed"), ["seed"])
    >>> [round(float(got[k]), 2) for k in ("mean", "low", "high")]
    [2.0, -0.48, 4.48]
    """
    dims = _check(values, over, level)
    mean, variance, freedom = _moments(values, dims, denominator)
    half = xr.apply_ufunc(stdtrit, freedom, (1 + level) / 2) * np.sqrt(variance)
    about = {"level": level, "over": ", ".join(dims), "method": "crossed t"}
    return xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half}, attrs=about)


@checked
def proportion(values: xr.DataArray, over: Sequence[str], level: float = 0.95) -> xr.Dataset:
    """Return the proportion of ones among zeros and ones, with Wilson's interval (1927).

    Answers of one prompt or seed are alike; so it is Wilson's for as many independent answers as have the
    variance that ``interval`` finds, fewer where that is badly known (Korn & Graubard 1998). Where all
    answers agree, how alike they are cannot be seen, and each counts as one.

    Args:
        values: zeros and ones.
        over: the dimensions to average over, taken as random samples.
        level: how often such intervals hold the true proportion.

    Raises:
        LookupError: for a dimension that the values do not have.
        ValueError: for values other than 0 and 1, and what ``interval`` refuses.

    >>> got = proportion(xr.DataArray([1.0, 1.0, 1.0, 1.0], dims="seed"), ["seed"])
    >>> round(float(got["low"]), 2), float(got["high"])
    (0.51, 1.0)
    """
    if not bool(values.isin((0, 1)).all()):
        raise UsageError("a proportion is of zeros and ones; these values hold others: use interval")
    dims = _check(values, over, level)
    mean, variance, freedom = _moments(values, dims, None)
    n, agree = values.size // mean.size, mean * (1 - mean) == 0
    z, upper = NormalDist().inv_cdf((1 + level) / 2), (1 + level) / 2
    alike = n / (n - 1) * (stdtrit(n - 1, upper) / stdtrit(freedom, upper)) ** 2 if n > 1 else np.nan
    independent = (alike * mean * (1 - mean) / variance).clip(1, n)
    m = independent.where(~agree, n).where(variance.notnull())
    middle = (mean + z**2 / (2 * m)) / (1 + z**2 / m)
    half = z / (1 + z**2 / m) * np.sqrt(mean * (1 - mean) / m + z**2 / (4 * m**2))
    low = np.minimum(middle - half, mean).clip(0, 1)  # the minimum with the mean only mends rounding
    high = np.maximum(middle + half, mean).clip(0, 1)
    about = {"level": level, "over": ", ".join(dims), "method": "Wilson, crossed"}
    return xr.Dataset({"mean": mean, "low": low, "high": high}, attrs=about)


def _check(values: xr.DataArray, over: Sequence[str], level: float) -> list[str]:
    dims = [over] if isinstance(over, str) else list(dict.fromkeys(over))
    for dim in dims:
        if dim not in values.dims:
            raise NotFoundError(f"the values have no dimension {dim!r}; {near(dim, map(str, values.dims))}")
    if not dims or not values.size:
        raise UsageError(f"there is nothing to average: values of shape {dict(values.sizes)}, over {dims}")
    if not 0 < level < 1:
        raise UsageError(f"level is {level}; it lies between 0 and 1, like 0.95")
    return dims


def _moments(
    values: xr.DataArray, dims: Sequence[str], denominator: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The mean over dimensions, the variance of that mean, and its degrees of freedom."""
    mean = values.mean(dims, skipna=False)
    if denominator is not None:
        below = denominator.mean([d for d in dims if d in denominator.dims], skipna=False)
        mean = mean / below
        values = (values - mean * denominator) / below  # the ratio's mean moves as the mean of these
    single = [d for d in dims if values.sizes[d] == 1]
    values = values.isel(dict.fromkeys(single, 0), drop=True)
    rest = [d for d in dims if d not in single]
    if not rest:
        nothing = xr.full_like(mean, np.nan)
        return mean, nothing, nothing
    variance, freedom = _variance(values.transpose(*mean.dims, *rest).to_numpy(), len(rest))
    return mean, mean.copy(data=variance), mean.copy(data=freedom)


def _variance(x: Array, n_dims: int) -> tuple[Array, Array]:
    """Variance of the mean of [..., a, b, ...] over its last dimensions, and its degrees of freedom."""
    axes = tuple(range(x.ndim - n_dims, x.ndim))
    effects: dict[tuple[int, ...], Array] = {}
    parts: dict[tuple[int, ...], tuple[Array, int]] = {}  # share in the variance of the mean, freedom
    for some in (kept for size in range(n_dims + 1) for kept in combinations(axes, size)):
        marginal = x.mean(tuple(a for a in axes if a not in some), keepdims=True)
        effects[some] = marginal - sum(e for kept, e in effects.items() if set(kept) < set(some))
        freedom = math.prod(x.shape[a] - 1 for a in some)
        parts[some] = (effects[some] ** 2).mean(axes) / freedom, freedom
    del parts[()]  # the mean itself
    variance = sum((-1) ** (len(some) + 1) * part for some, (part, _) in parts.items())
    spread = sum(part**2 / freedom for part, freedom in parts.values())
    found = np.asarray(variance)
    freedom_of = np.divide(found**2, spread, out=np.ones_like(found), where=spread > 0)
    for some in ((a,) for a in axes):  # no less than one dimension alone
        part, freedom = parts[some]
        freedom_of = np.where(part > found, freedom, freedom_of)
        found = np.maximum(part, found)
    return found, np.maximum(freedom_of, 1)
