"""Pictures before and after the edit, side by side."""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..analysis import plots


def pairs(data: xr.Dataset, kind: str, every_seed: bool = False) -> Any:
    """A figure of the pictures of a kind of question: before above, after below."""
    picked = pictures(data, kind, every_seed)
    names = [f"{prompt}, seed {seed}" for _, prompt, seed in picked]
    index = [i for i, _, _ in picked]
    return plots.before_after(data["before"][index], data["after"][index], names)


def pictures(data: xr.Dataset, kind: str, every_seed: bool) -> list[tuple[int, str, int]]:
    """Which pictures of a kind to show: (index, prompt, seed)."""
    seeds = data["seed"].values
    questions = [
        (q, str(p))
        for q, (k, p) in enumerate(zip(data["kind"].values, data["prompt"].values, strict=True))
        if k == kind
    ]
    wanted = range(len(seeds)) if every_seed else range(1)
    return [(q * len(seeds) + s, prompt, int(seeds[s])) for q, prompt in questions for s in wanted][:8]
