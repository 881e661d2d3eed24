"""The page of a bias: one self-contained HTML file without a script."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from ..analysis import plots
from ..report.page import made_by, rendered

MOST_SHOWN = 16
"""Pictures of one way on the page."""
NEITHER = "neither"
"""What is said of pictures of other classes."""
WAYS = {
    "plain": "nothing done",
    "features": "the features found, pushed",
    "as active": "control: as many other features, as active",
    "contrast": "features by plain class contrast, pushed",
    "means": "the classes' mean activations: what one has more of is added, no features",
    "words": "the class written into the prompt, half and half",
}


def render(
    data: xr.Dataset, ways: pd.DataFrame, shares: pd.DataFrame, features: pd.DataFrame, command: str
) -> str:
    """Return the page.

    Args:
        data: of a BiasStudy.
        ways: its ``to_frame``.
        shares: its ``shares``.
        features: its ``features``.
        command: how it was made; empty is a call in Python.
    """
    about = data.attrs
    page = {
        "classes": list(about["classes"]),
        "subject": about["prompt"],
        "about": about["about"],
        "facts": [
            f"model {about['model']}", f"{about['steps']} steps", f"{data.sizes['sample']} new samples",
            f"found on {about['found_on']} others",
        ],
        "towards": about["towards"],
        "strength": f"{about['strength']:.3g}",
        "reached": bool(about["reached"]),
        "pushed": about["strength"] > 0,
        "searched": "features" not in about["missing"],
        "missing": [(WAYS[way], why) for way, why in about["missing"].items()],
        "bars": [_bars(str(way), shares) for way in data["way"].values],
        "table": [_row(row) for row in ways.to_dict("records")],
        "grids": [_grid(data, i) for i in range(data.sizes["way"])],
        "features": [
            (r["class"], r["feature"], f"{r['score']:.3g}", f"{r['auc']:.2f}")
            for r in features.to_dict("records")
        ],
        "told": _best(data),
        "provenance": made_by(
            command or "denoscope.study_bias",
            about,
            dictionary=about["dictionary"],
            guidance=about["guidance"],
        ),
    }  # fmt: skip
    return rendered("bias.html.jinja", page=page)


def _bars(way: str, shares: pd.DataFrame) -> dict[str, Any]:
    own = shares[shares["way"] == way].set_index("class")
    bars = [
        {
            "class": name,
            "said": f"{own['mean'][name]:.0%} ({own['low'][name]:.0%} to {own['high'][name]:.0%})",
            **{k: f"{100 * own[k][name]:.2f}" for k in ("mean", "low", "high")},
            "span": f"{100 * (own['high'][name] - own['low'][name]):.2f}",
        }
        for name in own.index
    ]
    return {"way": way, "said": WAYS[way], "bars": bars}


def _row(row: dict[str, Any]) -> list[str]:
    def bounds(name: str) -> str:
        if name not in row or pd.isna(row[name]):
            return "none of the classes"
        return f"{row[name]:.3f} ({row[name + '_low']:.3f} to {row[name + '_high']:.3f})"

    chance = "" if pd.isna(row.get("chance", float("nan"))) else f"{row['chance']:.3f}"
    return [row["way"], bounds("discrepancy"), chance, *map(bounds, ("kept", "moved", "quality"))]


def _grid(data: xr.Dataset, i: int) -> dict[str, Any]:
    way, n = str(data["way"].values[i]), min(MOST_SHOWN, data.sizes["sample"])
    labels, seeds = data["label"].values[i], data["seed"].values
    shown = [
        (plots.picture_address(data["pictures"].values[i, s]), str(labels[s]), int(seeds[s]))
        for s in range(n)
    ]
    return {"way": way, "said": WAYS[way], "pictures": shown}


def _best(data: xr.Dataset) -> str:
    at = int(data["told_mean"].values.argmax())
    low, high = (float(data[f"told_{k}"][at]) for k in ("low", "high"))
    return (
        f"at step {int(data['step'][at])} in {float(data['told_mean'][at]):.0%} of cases ({low:.0%} to "
        f"{high:.0%}); with shuffled labels {float(data['told_shuffled'][at]):.0%}"
    )
