"""Whether one change is ahead of others, seed by seed: signs of differences, flipped in all ways."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
SURE = 0.05
RESAMPLES = 9999
"""Of more than thirteen seeds this many flips are drawn; of fewer all are gone through."""


def ahead(best: str, worth: Mapping[str, Array]) -> pd.DataFrame:
    """Return by how much a change is ahead of each other one, and how often that comes by chance.

    All changes were painted with the same seeds. Were two alike, each seed's difference would be as likely
    with the other sign (Fisher 1935, section 21; one-sided). ``p`` is Holm's (1979), for all others at once.

    Args:
        best: which one.
        worth: of each change, what every seed came to [seed].

    Returns:
        Columns change, difference (mean over seeds) and p, in the order of ``worth``.
    """
    from scipy.stats import permutation_test  # noqa: PLC0415  # slow to import

    def mean(a: Array, b: Array, axis: int) -> Array:
        found: Array = (a - b).mean(axis)
        return found

    others, seeds = [n for n in worth if n != best], len(worth[best])
    p = [
        1.0  # one seed cannot say
        if seeds < 2
        else float(
            permutation_test(
                (worth[best], worth[n]), mean, permutation_type="samples", alternative="greater",
                n_resamples=RESAMPLES, rng=np.random.default_rng(0),
            ).pvalue
        )
        for n in others
    ]  # fmt: skip
    differences = [float((worth[best] - worth[n]).mean()) for n in others]
    return pd.DataFrame({"change": others, "difference": differences, "p": holm(p)})


def holm(p: list[float]) -> list[float]:
    """Return p values that hold for all of several tests at once (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        found[i] = least
    return found


def told(frame: pd.DataFrame, seeds: int) -> str:
    """Say it in a sentence."""
    n = len(frame)
    if not n:
        return ""
    if 2.0**-seeds * n > SURE:
        few = "1 seed is" if seeds == 1 else f"{seeds} seeds are"
        return f"{few} too few to tell it from {n} other{'s' * (n != 1)} seed by seed"
    behind = int((frame["p"] <= SURE).sum())
    return f"Seed by seed it is ahead of {behind} of {n} others (exact test of signs, 5 % for all together)"
