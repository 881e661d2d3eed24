"""How directions lie to each other, and random ones of equal length."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch

from ...models.arguments import checked
from ...models.errors import UsageError
from ...probes.direction import Direction


@checked
def cosine_table(directions: Mapping[str, Direction]) -> pd.DataFrame:
    """Return the cosine of each pair of directions, by name; sites that only one has add nothing.

    Raises:
        ValueError: for no directions, and such as do not fit each other.
    """
    if not directions:
        raise UsageError('directions is {}; name some: {"woman": ..., "dark": ...}')
    rows = [[a.cosine(b) for b in directions.values()] for a in directions.values()]
    return pd.DataFrame(rows, list(directions), list(directions))


@checked
def random_like(direction: Direction, seed: int = 0) -> Direction:
    """Return a random direction whose vectors are as long as those of another, site by site and row by row.

    Raises:
        ValueError: for a seed below 0.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; it is a whole number from 0 up")
    source, made = torch.Generator().manual_seed(seed), {}
    for site, v in direction.vectors.items():
        drawn = torch.randn(v.shape, generator=source, dtype=torch.float64)
        norms = torch.linalg.vector_norm(v.double().cpu(), dim=-1, keepdim=True)
        made[site] = (drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True) * norms).to(v)
    return direction._with(made).noted(method="random", seed=seed)
