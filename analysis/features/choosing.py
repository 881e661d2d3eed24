"""Which features are edited, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.errors import UsageError

Array = NDArray[np.float64]


def matched(taken: Mapping[str, Sequence[int]], activity: Array) -> dict[str, list[int]]:
    """Return for each feature that was taken another one that is as active: a control of equal norm.

    Args:
        taken: features by class.
        activity: mean strength of each feature.
    """
    free = np.ones(len(activity), dtype=bool)
    free[[f for some in taken.values() for f in some]] = False
    found: dict[str, list[int]] = {name: [] for name in taken}
    turns = max(map(len, taken.values()), default=0)
    for i in range(turns):  # in turns, so that no class gets the worse matches
        for name, some in taken.items():
            if i < len(some) and free.any():
                far = np.where(free, np.abs(activity - activity[some[i]]), np.inf)
                found[name].append(int(far.argmin()))
                free[found[name][-1]] = False
    return found


def amounts(
    own: Sequence[int], others: Sequence[int], strength: float, how: str, level: Array
) -> tuple[list[int], list[float]]:
    """Return features and what is done to each, to push towards the class of the first ones."""
    if how == "scale":
        up, down = max(0.0, 1 + strength), max(0.0, 1 - strength)
        return [*own, *others], [up] * len(own) + [down] * len(others)
    pushed = [strength * float(level[f]) for f in own]
    if how == "add":
        return list(own), pushed
    if how == "set":
        return [*own, *others], [*pushed, *[0.0] * len(others)]
    raise UsageError(f"how is {how!r}; it is 'scale', 'add' or 'set'")
