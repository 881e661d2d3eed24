"""What was found, turned into changes: all of them on the same prompts and seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import plots
from ..changes import WHILE_RUNNING, Changes
from ..findings import Finding
from ..plain import plain_part
from ..results import Results, Section

COLUMNS = {
    "efficacy": "reached",
    "generality": "other wordings",
    "specificity": "others kept",
    "unmoved": "look as before",
    "robustness": "from half-made pictures",
    "depth": "depth",
    "quality": "fit",
}
ACROSS = 6
"""Pictures of one change, at most."""
ANALYSES = ("mediation", "information", "features", "directions")


def section(results: Results) -> Section:
    """A table, a map of efficacy and specificity, and the pictures of every change under the same seeds."""
    found = results.changes
    if found is None:
        return Section({"changes": None})
    frame = _ordered(found)
    values = {
        "goal": found.goal_said,
        "columns": list(COLUMNS.values()),
        "table": [_row(row, found) for row in frame.to_dict("records")],
        "best": found.best or "",
        "why": found.why,
        "skipped": [{"analysis": a, "why": why} for a, why in found.skipped],
        "judged": found.judged,
        "offered": [{"name": n, **{k: found.told[n][k] for k in ("analysis", "why")}} for n in found.names],
    }
    figures = {"changes": _pictures(found, frame)}
    if found.judged and np.isfinite(frame[["efficacy", "specificity"]]).all(axis=None):
        figures["traded"] = _traded(frame, found)
    values["traded"] = "traded" in figures
    return Section({"changes": values}, figures, _told(found))


def _ordered(found: Changes) -> pd.DataFrame:
    """What stands beside, then the changes, the best first."""
    frame = found.to_frame()
    if not found.judged:
        return frame
    worth = {n: -s if math.isfinite(s) else 1.0 for n, s in found.scores.items()}
    order = sorted(range(len(frame)), key=lambda i: worth.get(str(frame["change"][i]), -math.inf))
    return frame.iloc[order].reset_index(drop=True)


def _row(row: dict[str, Any], found: Changes) -> dict[str, Any]:
    name = str(row["change"])
    cells = ["" if math.isnan(row[c]) else _cell(row, c, percent=c != "quality") for c in COLUMNS]
    where = str(row["where"])
    where = where if where in {"", WHILE_RUNNING} else " and ".join(map(plain_part, where.split(", ")))
    cost = "" if name not in found.told else f"{int(row['rows']):,} rows, {int(row['size']):,} numbers"
    return {"name": name, "by": str(row["analysis"]), "cells": cells, "where": where, "cost": cost,
            "best": name == found.best}  # fmt: skip


def _cell(row: dict[str, Any], name: str, *, percent: bool) -> str:
    mean, low, high = (row[f"{name}{side}"] for side in ("", "_low", "_high"))
    if math.isnan(low):
        return f"{mean:.0%}" if percent else f"{mean:.2f}"
    if percent:
        return f"{mean:.0%} ({low:.0%} to {high:.0%})"
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _pictures(found: Changes, frame: pd.DataFrame) -> Any:
    """A row of pictures for each change, a column for each seed."""
    n = min(ACROSS, found.data.sizes["seed"])
    pictures = found.data["pictures"].sel(change=list(frame["change"])).isel(picture=slice(0, n))
    seeds = found.data["seed"].values[:n]
    names = [f"{name}, seed {s}" for name in frame["change"] for s in seeds]
    flat = pictures.stack(sample=("change", "picture")).transpose("sample", "y", "x", "channel")
    return plots.picture_rows(flat.drop_vars(["sample", "change", "picture"]), list(frame["change"]), names)


def _traded(frame: pd.DataFrame, found: Changes) -> Any:
    rows = []
    for row in frame.to_dict("records"):
        for measure in ("efficacy", "specificity"):
            bounds = [row[f"{measure}{side}"] for side in ("", "_low", "_high")]
            rows.append((row["change"], measure, "after", *bounds, int(row["change"] in found.told)))
    columns = ["method", "measure", "state", "mean", "low", "high", "concepts"]
    return plots.trade_off(pd.DataFrame(rows, columns=columns), up="specificity")


def _told(found: Changes) -> list[Finding]:
    """Say which change is best, and what offered none."""
    said = [Finding(found.why, weak=found.best is None)]
    offered = {t["analysis"] for t in found.told.values()}
    for analysis in dict.fromkeys(a for a, _ in found.skipped if a not in offered and a in ANALYSES):
        why = next(w for a, w in found.skipped if a == analysis)
        said.append(Finding(f"{analysis.capitalize()} offers no change: {why.rstrip('.')}.", weak=True))
    return said
