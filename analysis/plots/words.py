"""Maps of words over a picture, above 0 and below; and a matrix of what pairs of words have in common."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .maps import EFFECT, HEAT, centres, grey
from .pictures import panels, png
from .results import Pictures, pictures_of
from .style import layout, with_table

ACROSS = 4


def word_panels(
    picture: Pictures, maps: xr.DataArray, *, signed: bool = False, label: str = "value"
) -> go.Figure:
    """Maps of words over a grey picture, each in its own colours: where, not how much; that is written.

    Args:
        picture: pictures, of which the first is shown.
        maps: dims (word, y, x), of any size.
        signed: colour around 0, orange above and blue below; else from the least to the most.
        label: what the values are, for the hover.
    """
    pixels = pictures_of(picture)[0].values
    words, heat = [str(w) for w in maps["word"].values], np.asarray(maps.values)
    columns = min(len(words), ACROSS)
    titles = [f"{w} (up to {h.max():.2g})" for w, h in zip(words, heat, strict=True)]
    figure = panels(-(-len(words) // columns), columns, titles, size=pixels.shape[:2])
    source = png(grey(pixels))
    for i, (word, values) in enumerate(zip(words, heat, strict=True)):
        at = {"row": i // columns + 1, "col": i % columns + 1}
        figure.add_trace(go.Image(source=source, hoverinfo="skip", zsmooth="fast"), **at)
        low, high = limits(values, signed)
        figure.add_trace(
            go.Heatmap(
                z=values.tolist(),
                x=centres(values.shape[1], pixels.shape[1]),
                y=centres(values.shape[0], pixels.shape[0]),
                colorscale=EFFECT if signed else HEAT,
                opacity=0.75 if signed else 1,
                zmin=low,
                zmax=high,
                zsmooth="best",
                showscale=False,
                hovertemplate=f"{html.escape(word)}: %{{z:.3g}} {html.escape(label)}<extra></extra>",
            ),
            **at,
        )
    told = [(w, h.mean(), h.min(), h.max()) for w, h in zip(words, heat, strict=True)]
    return with_table(figure, ("word", f"mean {label}", "least", "most"), told)


def limits(values: np.ndarray[Any, Any], signed: bool) -> tuple[float, float]:
    """The values of no colour and of full colour; around 0 where signs have a meaning."""
    most = float(np.abs(values).max()) or 1.0
    return (-most, most) if signed else (float(values.min()), float(values.max()) or 1.0)


def matrix_of(data: xr.Dataset) -> np.ndarray[Any, Any]:
    """Redundancy of two words below the diagonal, synergy above it, each word's own nats on it.

    Args:
        data: of an Explanation: ``nats`` [word], ``pair_nats`` [pair, part], ``first`` and ``second`` [pair].
    """
    words = [str(w) for w in data["word"].values]
    found = np.diag(np.asarray(data["nats"].values, float))
    for pair in range(data.sizes["pair"]):
        one = data.isel(pair=pair)
        i, j = words.index(str(one["first"].item())), words.index(str(one["second"].item()))
        found[j, i] = float(one["pair_nats"].sel(part="redundancy"))
        found[i, j] = float(one["pair_nats"].sel(part="synergy"))
    return found


def pair_matrix(data: xr.Dataset) -> go.Figure:
    """Redundancy (below the diagonal) and synergy (above) of all pairs of words; their own nats on it.

    Args:
        data: as ``matrix_of`` takes it.
    """
    words, values = [str(w) for w in data["word"].values], matrix_of(data)
    limit = float(np.abs(values[~np.eye(len(words), dtype=bool)]).max()) or 1.0
    shown = np.where(np.eye(len(words), dtype=bool), np.nan, values)
    names = [[_told(words, i, j, values[i, j]) for j in range(len(words))] for i in range(len(words))]
    ticks = {"tickvals": list(range(len(words))), "ticktext": [html.escape(w) for w in words]}
    heat = go.Heatmap(
        z=shown.tolist(),
        text=[[f"{v:.3g}" for v in row] for row in values],
        texttemplate="%{text}",
        hovertext=names,
        hoverinfo="text",
        hoverongaps=True,
        colorscale=EFFECT,
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorbar={"thickness": 7, "outlinewidth": 0},
    )
    figure = go.Figure(heat, layout(height=100 + 34 * max(len(words), 3)))
    figure.update_xaxes(**ticks, automargin=True, showgrid=False)
    figure.update_yaxes(**ticks, automargin=True, showgrid=False, autorange="reversed")
    rows = [
        (str(p["pair"].item()), *(float(p["pair_nats"].sel(part=k)) for k in ("redundancy", "synergy")))
        for p in (data.isel(pair=i) for i in range(data.sizes["pair"]))
    ]
    return with_table(figure, ("pair", "redundancy", "synergy"), rows)


def _told(words: list[str], i: int, j: int, value: float) -> str:
    a, b = (html.escape(words[k]) for k in (i, j))
    if i == j:
        return f"{a}: {value:.3g} nats given all others"
    return f"{'redundancy' if i > j else 'synergy'} of {a} and {b}: {value:.3g} nats"
