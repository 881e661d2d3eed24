"""The page of a steering: one self-contained HTML file; its script is that of the notebook's widget."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import pandas as pd
import xarray as xr

from ..analysis import plots
from ..report.page import made_by, rendered

STYLE = """
.steered .pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
.steered figure { margin: 0; width: 9rem; }
.steered img { width: 100%; display: block; border-radius: 8px; image-rendering: auto; }
.steered figcaption { font-size: .78rem; line-height: 1.35; margin-top: .3rem; }
.steered label { display: flex; align-items: center; gap: .8rem; margin: 0 0 .8rem; }
.steered input[type=range] { flex: 1; max-width: 34rem; }
.steered output { min-width: 4em; font-variant-numeric: tabular-nums; }
.steered table { border-collapse: collapse; margin-top: .8rem; }
.steered th, .steered td { text-align: left; padding: .15rem 1.2rem .15rem 0; }
"""


def script() -> str:
    """The module that draws the slider: its ``render({model, el})`` serves the widget and the page."""
    return (files("denoscope.steering") / "slider.js").read_text()


def shown(data: xr.Dataset, frame: pd.DataFrame) -> dict[str, Any]:
    """What the script reads.

    Args:
        data: of a Steered.
        frame: its ``to_frame``.
    """
    strengths = [float(s) for s in data["strength"].values]
    names = [(p, s) for p in range(data.sizes["prompt"]) for s in range(data.sizes["seed"])]
    captions = [f"{data['prompt'].values[p]}, seed {data['seed'].values[s]}" for p, s in names]
    sources = [
        [plots.picture_address(data["pictures"].values[i, p, s]) for p, s in names]
        for i in range(len(strengths))
    ]
    metrics = [str(m) for m in data["metric"].values]
    told = {(row.strength, row.metric): said(row.mean, row.low, row.high) for row in frame.itertuples()}
    return {
        "strengths": strengths,
        "labels": [f"{s:+g}" if s else "0" for s in strengths],
        "captions": captions,
        "sources": sources,
        "metrics": metrics,
        "told": [[told[s, m] for m in metrics] for s in strengths],
        "first": strengths.index(0.0),
    }


def said(mean: float, low: float, high: float) -> str:
    """A number with its interval, if there is one.

    >>> said(0.1234, 0.1, 0.15), said(0.1234, float("nan"), float("nan"))
    ('0.123 (0.1 to 0.15)', '0.123')
    """
    return f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"


def render(data: xr.Dataset, frame: pd.DataFrame, command: str) -> str:
    """Return the page.

    Args:
        data: of a Steered.
        frame: its ``to_frame``.
        command: how it was made; empty is a call in Python.
    """
    about, values = data.attrs, shown(data, frame)
    facts = [f"model {about['model']}", f"{about['steps']} steps", f"guidance {about['guidance']:g}"]
    subject = ", ".join(filter(None, about["subject"])) or "none"
    page = {
        "prompts": [str(p) for p in data["prompt"].values],
        "facts": facts,
        "shown": values,
        "table": list(zip(values["labels"], values["told"], values["sources"], strict=True)),
        "provenance": made_by(
            command or "denoscope.steered", about, direction=about["direction"], subject=subject
        ),
        "style": STYLE,
        "script": script(),
    }
    return rendered("steered.html.jinja", page=page)
