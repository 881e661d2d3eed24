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
from .results import Effects, Pictures, effects_of, pictures_of
from .style import interval_text, layout, with_table

EFFECT = [
    [0.0, "rgba(37,99,235,1)"],
    [0.47, "rgba(37,99,235,0.08)"],
    [0.5, "rgba(128,128,128,0.06)"],
    [0.53, "rgba(217,72,15,0.08)"],
    [1.0, "rgba(217,72,15,1)"],
]
HEAT = [[0.0, "rgba(255,120,20,0)"], [0.35, "rgba(255,120,20,0.12)"], [1.0, "rgba(255,96,0,0.85)"]]
SMALL = 0.05
# dark on nearly white: read on any colour of a map, and on light and dark paper
CHIP = {
    "showarrow": False,
    "bgcolor": "rgba(255,255,255,0.88)",
    "font": {"size": 11, "color": "#1c1c1f"},
    "borderpad": 1,
}


def effect_map(effects: Effects, label: str = "effect", limit: float = 1) -> go.Figure:
    """Heat map of effects with their confidence intervals: one place for each row and column.

    The colour runs from ``-limit`` to ``limit``, not from the least to the most: a weak effect looks weak. A
    number is written where the interval leaves out 0 and the effect is at least 0.05 of the limit.

    Args:
        effects: Scores over one or two dimensions; a Mediation, whose shares are drawn; or ``mean``, ``low``
            and ``high`` with dims (row, column), NaN where there is no such place. Sites alone are drawn as
            blocks by kinds. A ``name`` of the same dims, if there is one, heads the hover.
        label: what the numbers are, for the hover.
        limit: the effect of full colour; 1 fits shares of a whole effect.

    Raises:
        TypeError: for what holds no effects.
        ValueError: if there are more than two dimensions.
    """
    effects = effects_of(effects)
    mean = effects["mean"]
    rows, columns = ([str(v) for v in mean[d].values] for d in mean.dims)
    cells = [[_Cell.of(effects, i, j) for j in range(len(columns))] for i in range(len(rows))]
    heat = go.Heatmap(
        z=[[c.mean for c in row] for row in cells],
        hovertext=[[c.hover(label) for c in row] for row in cells],
        hoverinfo="text",
        hoverongaps=False,
        colorscale=EFFECT,
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorbar={
            "thickness": 7,
            "len": 1,
            "outlinewidth": 0,
            "tickvals": [-limit, 0, limit],
            "xpad": 6,
            "ticktext": [f"{x:.3g}" for x in (-limit, 0, limit)],
        },  # fmt: skip
    )
    figure = go.Figure(heat, layout(height=100 + 30 * max(len(rows), 3)))
    figure.update_xaxes(**_ticks(columns), tickangle=-45)
    figure.update_yaxes(**_ticks(rows))
    figure.update_layout(
        annotations=[
            {**CHIP, "x": j, "y": i, "text": text}
            for i, row in enumerate(cells)
            for j, c in enumerate(row)
            if (text := c.number(SMALL * limit))
        ]
    )
    rows_of_table = [
        (rows[i], columns[j], c.mean, c.low, c.high)
        for i, row in enumerate(cells)
        for j, c in enumerate(row)
        if not np.isnan(c.mean)
    ]
    return with_table(figure, (*map(str, mean.dims), label, "low", "high"), rows_of_table)


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


def word_heat(
    picture: Pictures,
    maps: xr.DataArray | None = None,
    *,
    sample: int = 0,
    shared: bool = True,
    label: str = "attention",
) -> go.Figure:
    """Where each word was read, over the picture: one panel for each word.

    The picture is shown in grey, and each word with the most that it got anywhere.

    Args:
        picture: WordMaps; or pictures, of which ``sample`` is shown: dims (sample, y, x, channel), or without
            sample.
        maps: dims (word, y, x), of any size; values are shown in the hover. None are those of the WordMaps.
        sample: which one.
        shared: colour all words from the least to the most of all, so that a word that is read little looks
            pale. False colours each from its own least to its own most: compare places, not words.
        label: what the values are.

    Raises:
        ValueError: for pictures without maps, a sample that is not there, and maps of every step,
            layer or head.
    """
    maps = _maps_of(picture, sample) if maps is None else maps
    pixels = pictures_of(picture)[sample].values
    words = [str(w) for w in maps["word"].values]
    heat = np.asarray(maps.values)
    columns = min(len(words), 3)
    titles = [f"{w} (up to {np.nanmax(h):.2g})" for w, h in zip(words, heat, strict=True)]
    figure = panels(-(-len(words) // columns), columns, titles, size=pixels.shape[:2])
    source = png(grey(pixels))
    for i, word in enumerate(words):
        at = {"row": i // columns + 1, "col": i % columns + 1}
        figure.add_trace(go.Image(source=source, hoverinfo="skip", zsmooth="fast"), **at)
        figure.add_trace(
            _heat(
                word,
                heat[i],
                pixels.shape,
                heat if shared else heat[i],
                scale=label if shared and not i else "",
            ),
            **at,
        )
    told = [(w, np.nanmean(h), np.nanmax(h)) for w, h in zip(words, heat, strict=True)]
    return with_table(figure, ("word", f"mean {label}", "at most"), told)


def _maps_of(picture: Any, sample: int) -> xr.DataArray:
    """The maps of one sample of WordMaps: the words that its prompt has."""
    found = getattr(picture, "maps", None)
    if not isinstance(found, xr.DataArray):
        raise UsageError(
            f"a {type(picture).__name__} holds no word maps; give WordMaps, or pictures and maps"
        )
    if more := [d for d in ("step", "layer", "head") if d in found.dims]:
        raise UsageError(
            f"these are maps of every {more[0]}; choose one: "
            f"word_heat(found, found.maps.isel({more[0]}=0, sample={sample}))"
        )
    if not 0 <= sample < found.sizes["sample"]:
        raise UsageError(f"sample is {sample}; there are 0 to {found.sizes['sample'] - 1}")
    return found.isel(sample=sample).dropna("word", how="all")


def _heat(
    word: str, heat: np.ndarray[Any, Any], shape: tuple[int, ...], of: np.ndarray[Any, Any], *, scale: str
) -> go.Heatmap:
    """One map over a picture [y, x, channel], coloured from the least to the most of some maps."""
    return go.Heatmap(
        z=heat.tolist(),
        x=centres(heat.shape[1], shape[1]),
        y=centres(heat.shape[0], shape[0]),
        colorscale=HEAT,
        zmin=float(np.nanmin(of)),
        zmax=float(np.nanmax(of)),
        zsmooth="best",
        showscale=bool(scale),
        colorbar={
            "thickness": 7,
            "outlinewidth": 0,
            "title": {"text": scale, "side": "right"},
            "nticks": 3,
        },
        hovertemplate=f"{html.escape(word)}: %{{z:.3f}}<extra></extra>",
    )


def centres(cells: int, pixels: int) -> list[float]:
    """Where the cells of a coarse map lie, in pixels of the picture below it."""
    size = pixels / cells
    return [size * (i + 0.5) - 0.5 for i in range(cells)]


def grey(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same picture without colour, a little lighter, still [y, x, channel]."""
    grey = pixels.astype(float) @ np.array([0.299, 0.587, 0.114])
    return np.repeat((70 + 0.72 * grey)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
