"""Means with intervals over concepts and seeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from ..analysis.intervals import interval, proportion

MEASURES: dict[str, tuple[str, ...]] = {
    "efficacy": ("efficacy",),
    "generality": ("paraphrase", "capitals", "plural"),
    "paraphrase": ("paraphrase",),
    "capitals": ("capitals",),
    "plural": ("plural",),
    "neighbours": ("neighbour",),
    "bystanders": ("bystander",),
}
COLUMNS = ("method", "measure", "state", "mean", "low", "high", "concepts")
STATES = ("before", "after", "oracle")
Row = tuple[str, str, str, float, float, float, int]


def summed(pictures: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return mean, low and high for each method, measure and state, of a table of pictures."""
    rows: list[Row] = []
    for method in dict.fromkeys(pictures["method"]):
        own = pictures[pictures["method"] == method]
        for measure, aims in MEASURES.items():
            some = own[own["aim"].isin(aims)]
            for state in STATES:
                rows += _row(some, f"shown_{state}", (method, measure, state), level)
        for name, aims in (
            ("fit", MEASURES["efficacy"]),
            ("fit of other things", ("neighbour", "bystander")),
        ):
            for state in STATES:
                rows += _row(own[own["aim"].isin(aims)], f"fit_{state}", (method, name, state), level)
        still = own[own["aim"].isin(("neighbour", "bystander"))]
        rows += _row(still, "moved", (method, "drift", "after"), level)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(some: pd.DataFrame, column: str, names: tuple[str, str, str], level: float) -> Iterator[Row]:
    if some.empty:
        return
    table = some.pivot_table(index="concept", columns="seed", values=column, aggfunc="mean", dropna=False)
    values = xr.DataArray(table.to_numpy(float), dims=("concept", "seed"))
    shares = column.startswith("shown") and set(np.unique(values)) <= {0.0, 1.0}
    found = (proportion if shares else interval)(values, ["concept", "seed"], level)
    mean, low, high = (float(found[k]) for k in ("mean", "low", "high"))
    if column.startswith("shown"):
        low, high = max(low, 0.0), min(high, 1.0)
    yield (*names, mean, low, high, len(table))
