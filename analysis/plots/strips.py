"""Pictures beside each other: at each step of a run, and before and after a change."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ...models.errors import UsageError
from .pictures import aspect, panels, png
from .style import layout


def sampling_strip(pictures: xr.DataArray, names: Sequence[str] = ()) -> go.Figure:
    """Pictures at each step of a run, with a slider over the steps.

    Args:
        pictures: dims (step, row, column, y, x, channel); a mosaic of rows and columns for each step.
        names: what the rows are, for the hover.
    """
    sources = [png(_mosaic(p)) for p in pictures.values]
    rows, columns = pictures.shape[1:3]
    steps = [str(int(s) + 1) for s in pictures["step"].values]
    hover = "<br>".join(f"row {i + 1}: {html.escape(n)}" for i, n in enumerate(names)) + "<extra></extra>"

    def picture(source: str) -> go.Image:
        return go.Image(source=source, hovertemplate=hover, zsmooth="fast")

    first = len(steps) // 3  # where noise and prediction differ most to the eye
    figure = go.Figure(
        picture(sources[first]),
        layout(),
        frames=[go.Frame(data=[picture(s)], name=n) for s, n in zip(sources, steps, strict=True)],
    )
    figure.update_layout(
        sliders=[_slider(steps, first)],
        xaxis={"visible": False, "fixedrange": True},
        yaxis={"visible": False, "fixedrange": True},
        meta={"aspect": aspect(rows, columns, pictures.shape[3:5]), "extra": 84},
    )
    return figure


def _slider(steps: Sequence[str], active: int) -> dict[str, Any]:
    move = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "active": active,
        "currentvalue": {"prefix": "step ", "xanchor": "left"},
        "pad": {"t": 10, "b": 4},
        "x": 0.01,
        "len": 0.98,
        "steps": [{"label": n, "method": "animate", "args": [[n], move]} for n in steps],
    }


def _mosaic(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Join [row, column, y, x, channel] into one picture."""
    rows, columns, height, width, channels = pictures.shape
    return pictures.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def before_after(before: xr.DataArray, after: xr.DataArray, names: Sequence[str]) -> go.Figure:
    """Pairs of pictures of the same prompt and seed: before above, after below.

    Args:
        before: dims (sample, y, x, channel).
        after: the same samples, after the change.
        names: what each sample is, for the hover.

    Raises:
        ValueError: if the two do not pair up.
    """
    if before.shape != after.shape or len(names) != len(before):
        raise UsageError(
            f"pictures do not pair up: {before.shape} before, {after.shape} after, {len(names)} names"
        )
    n = len(names)
    figure = panels(2, n, size=before.shape[1:3])
    for row, (pictures, when) in enumerate(((before, "before"), (after, "after")), 1):
        for i, (pixels, name) in enumerate(zip(pictures.values, names, strict=True)):
            hover = f"<b>{when}</b><br>{html.escape(name)}<extra></extra>"
            picture = go.Image(source=png(pixels), hovertemplate=hover, zsmooth="fast")
            figure.add_trace(picture, row=row, col=i + 1)
    return figure
