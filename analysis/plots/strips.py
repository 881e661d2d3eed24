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
from .results import Pictures, captions_of, pictures_of
from .style import layout, with_table

_LABEL = {"xref": "paper", "yref": "paper", "showarrow": False, "textangle": -90, "xanchor": "center"}
_ACROSS = 4  # pictures in a row


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


def before_after(before: Pictures, after: Pictures, names: Sequence[str] | None = None) -> go.Figure:
    """Pairs of pictures of the same prompt and seed: before above, after below.

    Args:
        before: a Trace, or pictures [sample, y, x, channel].
        after: the same samples, after the change.
        names: what each sample is, for the hover; None is what a Trace knows of them.

    Raises:
        ValueError: if the two do not pair up.
    """
    names = captions_of(before) if names is None else names
    first, second = pictures_of(before), pictures_of(after)
    names = names or [f"sample {i}" for i in range(len(first))]
    if first.shape != second.shape or len(names) != len(first):
        raise UsageError(
            f"pictures do not pair up: {first.shape} before, {second.shape} after, {len(names)} names"
        )
    figure = panels(2, len(names), size=first.shape[1:3])
    for row, (pictures, when) in enumerate(((first, "before"), (second, "after")), 1):
        for i, (pixels, name) in enumerate(zip(pictures.values, names, strict=True)):
            _show(figure, pixels, f"<b>{when}</b><br>{html.escape(name)}", row, i + 1)
        middle = sum(figure.layout[f"yaxis{(row - 1) * len(names) + 1}"].domain) / 2
        figure.add_annotation(text=when, x=0, y=middle, xshift=-12, **_LABEL)
    figure.update_layout(margin={"l": 24})
    moved = abs(second.astype(float) - first).mean(first.dims[1:]).values / 255
    return with_table(figure, ("picture", "mean change of a pixel, 0 to 1"), zip(names, moved, strict=True))


def picture_grid(
    pictures: Pictures, names: Sequence[str] | None = None, *, across: int = _ACROSS
) -> go.Figure:
    """Pictures in a grid, each with its prompt and seed.

    Args:
        pictures: a Trace, WordMaps, or pictures [sample, y, x, channel].
        names: what each is; None is what a run knows of them.
        across: how many stand in a row, at most.
    """
    names = captions_of(pictures) if names is None else names
    shown = pictures_of(pictures)
    across = min(across, len(shown))
    titles = [name if len(name) <= 34 else f"{name[:33]}…" for name in names]
    figure = panels(-(-len(shown) // across), across, titles, size=shown.shape[1:3])
    figure.update_annotations(font={"size": 11})
    for i, pixels in enumerate(shown.values):
        hover = html.escape(names[i]) if names else f"sample {i}"
        _show(figure, pixels, hover, i // across + 1, i % across + 1)
    return figure


def picture_rows(pictures: Pictures, rows: Sequence[str], names: Sequence[str]) -> go.Figure:
    """Pictures in rows that have names: one for each change, say, with a column for each seed.

    Args:
        pictures: [sample, y, x, channel], row by row, each as long as the others.
        rows: the rows' names, written above each.
        names: what each picture is, for the hover.

    Raises:
        ValueError: if the pictures do not make such rows.
    """
    shown = pictures_of(pictures)
    across = len(shown) // max(1, len(rows))
    if not rows or across * len(rows) != len(shown) or len(names) != len(shown):
        raise UsageError(f"{len(shown)} pictures and {len(names)} names do not make {len(rows)} rows")
    titles = [row if i == 0 else "" for row in rows for i in range(across)]
    figure = panels(len(rows), across, titles, size=shown.shape[1:3])
    for i, pixels in enumerate(shown.values):
        _show(figure, pixels, html.escape(names[i]), i // across + 1, i % across + 1)
    for i, title in enumerate(figure.layout.annotations):
        title.update(font={"size": 11}, xanchor="left", x=figure.layout[f"xaxis{i * across + 1}"].domain[0])
    return figure


def _show(figure: go.Figure, pixels: np.ndarray[Any, Any], hover: str, row: int, column: int) -> None:
    image = go.Image(source=png(pixels), hovertemplate=f"{hover}<extra></extra>", zsmooth="fast")
    figure.add_trace(image, row=row, col=column)
