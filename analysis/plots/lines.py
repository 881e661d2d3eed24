"""Lines with their intervals: levels along the steps of a run, whatever goes along a number."""

from __future__ import annotations

import html
from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from ...models.errors import UsageError
from .bars import COLOURS
from .style import INK, interval_text, layout, whiskers, with_table

PLACES = ("top right", "bottom left", "top left", "bottom right")
MARKED = 60
"""A line of more points is drawn without a mark on each."""


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


def interval_lines(frame: pd.DataFrame, along: str, label: str) -> go.Figure:
    """Lines with intervals along a number; one whose number is NaN is a height, dotted across all of it.

    Args:
        frame: ``line`` (its name), a column of numbers, ``mean``, ``low`` and ``high``; NaN for no interval.
        along: the column of numbers, told across.
        label: what the mean is.

    Raises:
        ValueError: if a column is not there.
    """
    columns = ["line", along, "mean", "low", "high"]
    if lost := [c for c in columns if c not in frame]:
        raise UsageError(f"the table has no column {lost[0]!r}; it has {', '.join(map(str, frame))}")
    figure = go.Figure(layout=layout(height=320))
    for i, (name, part) in enumerate(frame.dropna(subset=along).groupby("line", sort=False)):
        figure.add_trace(_along(part, str(name), COLOURS[(1 + i) % len(COLOURS)], along))
    across = frame[frame[along].isna()].groupby("mean", sort=False)["line"].agg(", ".join)
    for i, (height, name) in enumerate(across.items()):  # names that are near each other stand apart
        figure.add_hline(y=float(height), line={"color": INK, "width": 1, "dash": "dot"},
                         annotation_text=html.escape(name), annotation_position=PLACES[i % 4])  # fmt: skip
    figure.update_xaxes(title=html.escape(along), showgrid=False, zeroline=False, fixedrange=True)
    figure.update_yaxes(title=html.escape(label), gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    figure.update_yaxes(fixedrange=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return with_table(figure, columns, frame[columns].itertuples(index=False))


def _along(part: pd.DataFrame, name: str, colour: str, along: str) -> go.Scatter:
    mean, low, high = (part[k].to_numpy(float) for k in ("mean", "low", "high"))
    hover = [
        f"<b>{html.escape(name)}</b><br>{html.escape(along)} {k:g}: {v:.3f}<br>{interval_text(a, b)}"
        for k, v, a, b in zip(part[along], mean, low, high, strict=True)
    ]
    return go.Scatter(
        x=part[along].tolist(),
        y=[None if np.isnan(v) else float(v) for v in mean],
        name=html.escape(name),
        mode="lines+markers" if len(part) <= MARKED else "lines",
        line={"color": colour},
        error_y=whiskers(mean, low, high),
        hovertext=hover,
        hoverinfo="text",
    )


def _line(part: xr.Dataset, name: str, colour: str, *, dashed: bool) -> go.Scatter:
    mean, low, high = (part[k].values.astype(float) for k in ("mean", "low", "high"))
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
        error_y=whiskers(mean, low, high),
        hovertext=hover,
        hoverinfo="text",
    )
