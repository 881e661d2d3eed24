"""Heat maps: effects by place, and where each word was read."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ...models.errors import UsageError
from .pictures import panels, png
from .style import interval_text, layout

EFFECT = [
    [0.0, "rgba(37,99,235,1)"],
    [0.47, "rgba(37,99,235,0.08)"],
    [0.5, "rgba(128,128,128,0.06)"],
    [0.53, "rgba(217,72,15,0.08)"],
    [1.0, "rgba(217,72,15,1)"],
]
HEAT = [[0.0, "rgba(255,120,20,0)"], [0.35, "rgba(255,120,20,0.12)"], [1.0, "rgba(255,96,0,0.85)"]]
SMALL = 0.05


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
        raise UsageError(f"an effect map has two dimensions, got {mean.dims}; average over the others first")
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
    figure = go.Figure(heat, layout(height=100 + 30 * max(len(rows), 3)))
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
        return f"{head}<br>{interval_text(self.low, self.high)}"


def _ticks(labels: Sequence[str]) -> dict[str, Any]:
    """Positions 0, 1, ... with labels, so that equal labels stay apart."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [html.escape(t) for t in labels],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
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
    height, width = picture.shape[:2]
    figure = panels(-(-len(words) // columns), columns, words, size=(height, width))
    source = png(_grey(picture.values))
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


def _centres(cells: int, pixels: int) -> list[float]:
    """Where the cells of a coarse map lie, in pixels of the picture below it."""
    size = pixels / cells
    return [size * (i + 0.5) - 0.5 for i in range(cells)]


def _grey(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same picture without colour, a little lighter, still [y, x, channel]."""
    grey = pixels.astype(float) @ np.array([0.299, 0.587, 0.114])
    return np.repeat((70 + 0.72 * grey)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
