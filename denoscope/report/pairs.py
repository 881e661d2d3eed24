"""Pictures before and after the edit, side by side."""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..analysis import plots

MOST = 8
"""So many pairs are shown."""


def pairs(data: xr.Dataset, kind: str) -> Any:
    """A figure of the pictures of a kind of prompt: before above, after below."""
    picked = pictures(data, kind)
    names = [f"{prompt}, seed {seed}" for _, prompt, seed in picked]
    index = [i for i, _, _ in picked]
    return plots.before_after(data["before"][index], data["after"][index], names)


def pictures(data: xr.Dataset, kind: str) -> list[tuple[int, str, int]]:
    """Which pictures of a kind to show: (index, prompt, seed).

    Of the edited prompt every seed, of other wordings the first; of other things those that changed most,
    the worst first: an average hides the one that was damaged.
    """
    seeds = [int(s) for s in data["seed"].values]
    prompts = [str(p) for p in data["prompt"].values]
    asked = [q for q, k in enumerate(data["kind"].values) if k == kind]
    found = [(q, s) for q in asked for s in range(len(seeds)) if kind != "generality" or s == 0]
    if kind == "specificity":
        moved = data["colour" if "colour" in data else "moved"].values
        found.sort(key=lambda at: -float(moved[at]))
    return [(q * len(seeds) + s, prompts[q], seeds[s]) for q, s in found[:MOST]]
