"""How often "95 %" intervals hold the truth, by simulation: ``python benchmarks/intervals.py``.

Prompts and seeds are crossed random effects, so the truth is the mean over all prompts and seeds (with one
prompt: over all seeds). The table is written into docs/mediation.md, between ``<!-- intervals -->`` and
``<!-- /intervals -->``. A minute on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from pages import table, write
from scipy.stats import norm

from denoscope.analysis.intervals import interval, proportion

SIZES = ((1, 4), (4, 2), (4, 4), (8, 4), (12, 2))
SHARES = ((0.8, 0.1), (0.1, 0.8), (0.4, 0.4), (0.2, 0.2), (0.0, 0.0))  # of prompts and seeds in the variance
DRAWS: dict[str, Callable[..., np.ndarray]] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "skewed": lambda rng, size: rng.exponential(size=size) - 1,
    "heavy tails": lambda rng, size: rng.standard_t(3, size=size) / 3**0.5,
}
N = 1000  # studies for each cell
RESAMPLES = 400
OVER = ("prompt", "seed")


def main() -> None:
    """Simulate, and write the table."""
    rng = np.random.default_rng(0)
    rows = [(name, row(rng, cases)) for name, cases in KINDS.items()]
    text = table(["", *(f"{p} x {s}" for p, s in SIZES)], [[name, *cells] for name, cells in rows])
    write("docs/mediation.md", "intervals", text)


def row(rng: np.random.Generator, cases: Callable[..., Iterator[float]]) -> list[str]:
    """Coverage in per cent, least and most over how the variance is shared, for each size of study."""
    found = [[100 * c for c in cases(rng, size)] for size in SIZES]
    return [f"{min(f):.0f} to {max(f):.0f}" for f in found]


def crossed(
    rng: np.random.Generator,
    size: tuple[int, int],
    share: tuple[float, float],
    draw: Callable[..., np.ndarray],
) -> np.ndarray:
    """Values [study, prompt, seed] of mean 0 and variance 1; a single prompt is what the truth is about."""
    prompts, seeds = (np.sqrt(s) * draw(rng, shape) for s, shape in zip(share, shapes(size), strict=True))
    rest = np.sqrt(1 - sum(share)) * draw(rng, (N, *size))
    return seeds + rest + (prompts if size[0] > 1 else 0)


def shapes(size: tuple[int, int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return (N, size[0], 1), (N, 1, size[1])


def means(draw: str, *, old: bool = False) -> Callable[..., Iterator[float]]:
    """Intervals of a mean."""

    def cases(rng: np.random.Generator, size: tuple[int, int]) -> Iterator[float]:
        for share in SHARES:
            x = crossed(rng, size, share, DRAWS[draw])
            yield covered(*(bootstrap(rng, x) if old else ours(x)), 0.0)

    return cases


def ratios(*, old: bool = False) -> Callable[..., Iterator[float]]:
    """Intervals of a ratio of means whose denominator varies by half of its mean."""

    def cases(rng: np.random.Generator, size: tuple[int, int]) -> Iterator[float]:
        for share in SHARES:
            below = 1 + 0.5 * crossed(rng, size, share, DRAWS["normal"])
            x = 0.5 * below + 0.2 * crossed(rng, size, share, DRAWS["normal"])
            yield covered(*(bootstrap(rng, x, below) if old else ours(x, below)), 0.5)

    return cases


def proportions(rng: np.random.Generator, size: tuple[int, int]) -> Iterator[float]:
    """Intervals of a proportion of yes answers, 50 or 80 %."""
    for true in (0.5, 0.8):
        for share in SHARES:
            x = crossed(rng, size, share, DRAWS["normal"]) < norm.ppf(true)
            spread = 1.0 if size[0] > 1 else np.sqrt(1 - share[0])
            found = proportion(labelled(x.astype(float)), OVER)
            yield covered(found["low"].values, found["high"].values, norm.cdf(norm.ppf(true) / spread))


def ours(x: np.ndarray, below: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    found = interval(labelled(x), OVER, denominator=None if below is None else labelled(below))
    return found["low"].values, found["high"].values


def bootstrap(rng: np.random.Generator, x: np.ndarray, below: np.ndarray | None = None) -> list[np.ndarray]:
    """The percentile bootstrap that resamples prompts and seeds each on its own (Owen 2007)."""
    _, p, s = x.shape
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n for n in (p, s)]
    means = np.einsum("nps,bp,bs->nb", x, *weights, optimize=True)
    if below is not None:
        means = means / np.einsum("nps,bp,bs->nb", below, *weights, optimize=True)
    return [np.quantile(means, q, axis=1) for q in (0.025, 0.975)]


def labelled(x: np.ndarray) -> xr.DataArray:
    return xr.DataArray(x, dims=("study", *OVER))


def covered(low: np.ndarray, high: np.ndarray, true: float) -> float:
    return float(((low <= true) & (true <= high)).mean())


KINDS = {
    "mean, normal": means("normal"),
    "mean, skewed": means("skewed"),
    "mean, heavy tails": means("heavy tails"),
    "ratio of means": ratios(),
    "proportion": proportions,
    "*mean, percentile bootstrap*": means("normal", old=True),
    "*ratio, percentile bootstrap*": ratios(old=True),
}

if __name__ == "__main__":
    main()
