"""Interactive Plotly figures of results; each function returns a figure and shows nothing.

The only file that imports plotly. Inputs are plain labelled arrays, so a figure can be drawn again from a
saved store. Pictures are uint8 [..., y, x, channel]. Colours are picked to be read on light and on dark
paper; all backgrounds are transparent.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from PIL import Image
from plotly.subplots import make_subplots

INK = "#7a7a80"
COLOURS = ("#a3a7ae", "#d9480f", "#4f7cac")
EFFECT = [
    [0.0, "rgba(37,99,235,1)"],
    [0.47, "rgba(37,99,235,0.08)"],
    [0.5, "rgba(128,128,128,0.06)"],
    [0.53, "rgba(217,72,15,0.08)"],
    [1.0, "rgba(217,72,15,1)"],
]
HEAT = [[0.0, "rgba(255,120,20,0)"], [0.35, "rgba(255,120,20,0.12)"], [1.0, "rgba(255,96,0,0.85)"]]
SMALL = 0.05
_CLEAR = "rgba(0,0,0,0)"


def effect_map(effects: xr.Dataset, label: str = "effect", limit: float = 1) -> go.Figure:
    """Heat map of effects with their confidence intervals: one place for each row and column.

    The colour runs from ``-limit`` to ``limit``, not from the least to the most: a weak effect looks weak. A
    number is written where the interval leaves out 0 and the effect is at least 0.05 of the limit.

    Args:
        effects: ``mean``, ``low`` and ``high`` with dims (row, column), as ``Scores.interval`` gives them;
            NaN where there is no such place. A ``name`` of the same dims, if there is one, heads the hover.
        label: what the numbers are, for the hover.
        limit: the effect of full colour; 1 fits shares of a whole effect.

    Raises:
        ValueError: if there are not two dimensions.
    """
    mean = effects["mean"]
    if mean.ndim != 2:
        raise ValueError(f"an effect map has two dimensions, got {mean.dims}; average over the others first")
    rows, columns = ([str(v) for v in mean[d].values] for d in mean.dims)
    cells = [[_Cell.of(effects, i, j) for j in range(len(columns))] for i in range(len(rows))]
    heat = go.Heatmap(
        z=[[c.mean for c in row] for row in cells],
        text=[[c.number(SMALL * limit) for c in row] for row in cells],
        hovertext=[[c.hover(label) for c in row] for row in cells],
        texttemplate="%{text}",
        textfont={"size": 11},
        hoverinfo="text",
        hoverongaps=False,
        colorscale=EFFECT,
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorbar={"thickness": 7, "len": 1, "outlinewidth": 0, "tickvals": [-limit, 0, limit], "xpad": 6},
    )
    figure = go.Figure(heat, _layout(height=100 + 30 * max(len(rows), 3)))
    figure.update_xaxes(**_ticks(columns), tickangle=-45)
    figure.update_yaxes(**_ticks(rows))
    return figure


@dataclass(frozen=True)
class _Cell:
    """One place of an effect map."""

    name: str
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, effects: xr.Dataset, i: int, j: int) -> _Cell:
        mean = effects["mean"]
        name = ", ".join(str(mean[d].values[n]) for d, n in zip(mean.dims, (i, j), strict=True))
        if "name" in effects:
            name = str(effects["name"].values[i, j])
        return cls(name, *(float(effects[k].values[i, j]) for k in ("mean", "low", "high")))

    def number(self, least: float) -> str:
        shown = abs(self.mean) >= least and not self.low <= 0 <= self.high
        return f"{self.mean:.2f}" if shown else ""

    def hover(self, label: str) -> str:
        head = f"<b>{html.escape(self.name)}</b><br>{html.escape(label)} {self.mean:.3f}"
        return f"{head}<br>{_interval(self.low, self.high)}"


def sampling_strip(pictures: xr.DataArray, names: Sequence[str] = ()) -> go.Figure:
    """Pictures at each step of a run, with a slider over the steps.

    Args:
        pictures: dims (step, row, column, y, x, channel); a mosaic of rows and columns for each step.
        names: what the rows are, for the hover.
    """
    sources = [_png(_mosaic(p)) for p in pictures.values]
    rows, columns = pictures.shape[1:3]
    steps = [str(int(s) + 1) for s in pictures["step"].values]
    hover = "<br>".join(f"row {i + 1}: {html.escape(n)}" for i, n in enumerate(names)) + "<extra></extra>"

    def picture(source: str) -> go.Image:
        return go.Image(source=source, hovertemplate=hover, zsmooth="fast")

    first = len(steps) // 3  # where noise and prediction differ most to the eye
    figure = go.Figure(
        picture(sources[first]),
        _layout(),
        frames=[go.Frame(data=[picture(s)], name=n) for s, n in zip(sources, steps, strict=True)],
    )
    figure.update_layout(
        sliders=[_slider(steps, first)],
        xaxis={"visible": False, "fixedrange": True},
        yaxis={"visible": False, "fixedrange": True},
        meta={"aspect": rows / columns, "extra": 84},
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


def word_heat(picture: xr.DataArray, maps: xr.DataArray) -> go.Figure:
    """Where each word was read, over the picture: one panel for each word.

    The picture is shown in grey. Each map is coloured from its own smallest to its own largest value: compare
    places, not words.

    Args:
        picture: dims (y, x, channel).
        maps: dims (word, y, x), of any size; values are shown in the hover.
    """
    words = [str(w) for w in maps["word"].values]
    columns = min(len(words), 3)
    figure = _panels(-(-len(words) // columns), columns, words)
    height, width = picture.shape[:2]
    source = _png(_grey(picture.values))
    for i, word in enumerate(words):
        heat = maps.values[i]
        at = {"row": i // columns + 1, "col": i % columns + 1}
        figure.add_trace(go.Image(source=source, hoverinfo="skip", zsmooth="fast"), **at)
        figure.add_trace(
            go.Heatmap(
                z=heat.tolist(),
                x=_centres(heat.shape[1], width),
                y=_centres(heat.shape[0], height),
                colorscale=HEAT,
                zsmooth="best",
                showscale=False,
                hovertemplate=f"{html.escape(word)}: %{{z:.3f}}<extra></extra>",
            ),
            **at,
        )
    return figure


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
        raise ValueError(
            f"pictures do not pair up: {before.shape} before, {after.shape} after, {len(names)} names"
        )
    n = len(names)
    figure = _panels(2, n)
    for row, (pictures, when) in enumerate(((before, "before"), (after, "after")), 1):
        for i, (pixels, name) in enumerate(zip(pictures.values, names, strict=True)):
            hover = f"<b>{when}</b><br>{html.escape(name)}<extra></extra>"
            picture = go.Image(source=_png(pixels), hovertemplate=hover, zsmooth="fast")
            figure.add_trace(picture, row=row, col=i + 1)
    return figure


def effect_bars(effects: xr.Dataset) -> go.Figure:
    """Bars with confidence intervals, grouped by measure: before, after, and what to compare with.

    Args:
        effects: ``mean``, ``low`` and ``high`` with dims (measure, when); NaN where there is no number.
    """
    figure = go.Figure(layout=_layout(height=70 + 84 * effects.sizes["measure"]))
    for when, colour in zip(effects["when"].values, COLOURS, strict=False):
        figure.add_trace(_bar(effects.sel(when=when), str(when), colour))
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True)
    figure.update_xaxes(zeroline=True, zerolinecolor=INK, gridcolor="rgba(128,128,128,0.2)", fixedrange=True)
    figure.update_xaxes(rangemode="tozero")
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    figure.update_layout(barmode="group", bargap=0.32, bargroupgap=0.12, legend=legend)
    return figure


def _bar(part: xr.Dataset, name: str, colour: str) -> go.Bar:
    mean, low, high = (part[k].values for k in ("mean", "low", "high"))
    measures = [html.escape(str(m)) for m in part["measure"].values]
    told = [
        f"{m}<br>{html.escape(name)} <b>{v:.3f}</b><br>{_interval(a, b)}"
        for m, v, a, b in zip(measures, mean, low, high, strict=True)
    ]
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(high - mean).tolist(),
        "arrayminus": np.nan_to_num(mean - low).tolist(),
        "thickness": 1.2,
        "width": 4,
        "color": INK,
    }
    return go.Bar(
        name=html.escape(name),
        y=[m.replace(" ", "<br>", 1) for m in measures],
        x=[None if np.isnan(v) else float(v) for v in mean],
        orientation="h",
        marker={"color": colour},
        error_x=whiskers,
        hovertext=told,
        hoverinfo="text",
    )


def plotly_js() -> str:
    """Return the source of plotly.js, for a page that works offline."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _layout(height: int | None = None) -> dict[str, Any]:
    return {
        "template": None,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": _CLEAR},
        "dragmode": False,
    }


def _ticks(labels: Sequence[str]) -> dict[str, Any]:
    """Positions 0, 1, ... with labels, so that equal labels stay apart."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [html.escape(t) for t in labels],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }


def _interval(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return "no interval: a single run"
    zero = " (holds 0)" if low <= 0 <= high else ""
    return f"95% interval {low:.3f} to {high:.3f}{zero}"


def _panels(rows: int, columns: int, titles: Sequence[str] = ()) -> go.Figure:
    """Return an empty grid of panels for pictures, with titles above."""
    gap = 0.10 if titles else 0.02
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[html.escape(t) for t in titles] or None,
        horizontal_spacing=0.015,
        vertical_spacing=gap / rows,
    )
    figure.update_layout(_layout())
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    figure.update_annotations(font={"size": 13})
    top = 26 if titles else 4
    figure.update_layout(margin={"t": top}, meta={"aspect": rows / columns, "extra": top + 26 * (rows - 1)})
    return figure


def _centres(cells: int, pixels: int) -> list[float]:
    """Where the cells of a coarse map lie, in pixels of the picture below it."""
    size = pixels / cells
    return [size * (i + 0.5) - 0.5 for i in range(cells)]


def _grey(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same picture without colour, a little lighter, still [y, x, channel]."""
    grey = pixels.astype(float) @ np.array([0.299, 0.587, 0.114])
    return np.repeat((70 + 0.72 * grey)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def _mosaic(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Join [row, column, y, x, channel] into one picture."""
    rows, columns, height, width, channels = pictures.shape
    return pictures.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def _png(pixels: np.ndarray[Any, Any]) -> str:
    """A picture, uint8 [y, x, channel], as a data address."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
