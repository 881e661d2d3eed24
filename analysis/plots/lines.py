"""Levels along the steps of a run, as lines with their intervals."""

from __future__ import annotations

import html
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .bars import COLOURS
from .style import INK, interval_text, layout, with_table


def level_curves(curves: xr.Dataset) -> go.Figure:
    """Insertion and removal curves: a line for each concept and direction, with its intervals.

    Args:
        curves: ``mean``, ``low`` and ``high`` with dims (concept, direction, switch), ``Decision.curves()``.
    """
    figure = go.Figure(layout=layout(height=320))
    lines = list(product(curves["concept"].values, curves["direction"].values))
    for i, (concept, direction) in enumerate(lines):
        part = curves.sel(concept=concept, direction=direction)
        colour = COLOURS[(1 + i // 2) % len(COLOURS)]
        figure.add_trace(_line(part, f"{concept}, {direction}", colour, dashed=bool(i % 2)))
    figure.add_hline(y=0.5, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="steps before the switch", showgrid=False, zeroline=False, fixedrange=True)
    figure.update_yaxes(title="level", gridcolor="rgba(128,128,128,0.2)", zeroline=False, fixedrange=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    columns = ["concept", "direction", "switch", "mean", "low", "high"]
    frame = curves[["mean", "low", "high"]].to_dataframe().reset_index()[columns]
    return with_table(figure, columns, frame.itertuples(index=False))


def _line(part: xr.Dataset, name: str, colour: str, *, dashed: bool) -> go.Scatter:
    mean, low, high = (part[k].values.astype(float) for k in ("mean", "low", "high"))
    error: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(high - mean).tolist(),
        "arrayminus": np.nan_to_num(mean - low).tolist(),
        "thickness": 1.2,
        "width": 3,
    }
    hover = [
        f"<b>{html.escape(name)}</b><br>switched after {k}: {v:.3f}<br>{interval_text(a, b)}"
        for k, v, a, b in zip(part["switch"].values, mean, low, high, strict=True)
    ]
    return go.Scatter(
        x=part["switch"].values.tolist(),
        y=[None if np.isnan(v) else float(v) for v in mean],
        name=html.escape(name),
        mode="lines+markers",
        line={"color": colour, "dash": "dash" if dashed else "solid"},
        error_y=error,
        hovertext=hover,
        hoverinfo="text",
    )
