"""Pictures inside figures, and grids of panels for them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from .style import layout


def panels(
    rows: int, columns: int, titles: Sequence[str] = (), *, size: tuple[int, ...] = (1, 1)
) -> go.Figure:
    """Return an empty grid of panels for pictures, with titles above.

    Args:
        rows: of panels.
        columns: of panels.
        titles: one for each panel, or none.
        size: height and width of the pictures; their proportion alone counts.
    """
    gap = 0.10 if titles else 0.02
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[html.escape(t) for t in titles] or None,
        horizontal_spacing=0.015,
        vertical_spacing=gap / rows,
    )
    figure.update_layout(layout())
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    figure.update_annotations(font={"size": 13})
    top = 26 if titles else 4
    figure.update_layout(
        margin={"t": top}, meta={"aspect": aspect(rows, columns, size), "extra": top + 26 * (rows - 1)}
    )
    return figure


def aspect(rows: int, columns: int, size: Sequence[int]) -> float:
    """Return how high a grid of pictures is for its width; ``size`` is height and width of each."""
    return rows * size[0] / (columns * size[1])


def png(pixels: np.ndarray[Any, Any]) -> str:
    """A picture, uint8 [y, x, channel], as a data address."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
