"""Information in each cell of a picture, below 0 and above."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from .maps import EFFECT
from .pictures import panels
from .style import with_table

COLUMNS = 4


def nats_maps(maps: NDArray[np.float64], names: Sequence[str], *, shared: bool = True) -> go.Figure:
    """Maps [map, y, x], one panel each: blue below 0, orange above.

    Args:
        maps: values.
        names: of each.
        shared: colour all on one scale; False colours each to its own largest, where units differ.
    """
    columns = min(len(names), COLUMNS)
    titles = [f"{name}: {m.sum():.3g} in all" for name, m in zip(names, maps, strict=True)]
    figure = panels(-(-len(names) // columns), columns, titles, size=maps.shape[1:])
    for i, (name, values) in enumerate(zip(names, maps, strict=True)):
        limit = float(np.abs(maps if shared else values).max()) or 1.0
        heat = go.Heatmap(
            z=values.tolist(),
            colorscale=EFFECT,
            zmin=-limit,
            zmax=limit,
            showscale=shared and not i,
            colorbar={"thickness": 7, "outlinewidth": 0},
            hovertemplate=f"{html.escape(name)}: %{{z:.3g}}<extra></extra>",
        )
        figure.add_trace(heat, row=i // columns + 1, col=i % columns + 1)
    figure.update_yaxes(autorange="reversed")
    told = [(n, m.sum(), m.min(), m.max()) for n, m in zip(names, maps, strict=True)]
    return with_table(figure, ("map", "in all", "least", "most"), told)
