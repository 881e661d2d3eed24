"""The figures of words for print, by matplotlib; returned, never shown."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .maps import grey
from .results import Pictures, pictures_of
from .words import ACROSS, limits, matrix_of

ORANGE, BLUE = (1.0, 0.38, 0.0), (0.145, 0.388, 0.922)


class Still(Figure):
    """A figure that a notebook shows by itself, whatever its backend."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def static_panels(
    picture: Pictures, maps: xr.DataArray, *, signed: bool = False, label: str = "value"
) -> Still:
    """As ``word_panels``, a ``matplotlib.figure.Figure``.

    Args:
        picture: pictures, of which the first is shown.
        maps: dims (word, y, x), of any size.
        signed: colour around 0, orange above and blue below; else from the least to the most.
        label: what the values are.
    """
    pixels = pictures_of(picture)[0].values
    words, heat = [str(w) for w in maps["word"].values], np.asarray(maps.values)
    columns = min(len(words), ACROSS)
    rows = -(-len(words) // columns)
    figure = _figure((2.2 * columns, 2.45 * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    height, width = pixels.shape[:2]
    for axis in axes:
        axis.axis("off")
    for axis, word, values in zip(axes, words, heat, strict=False):
        axis.imshow(grey(pixels), extent=(0, width, height, 0))
        shade = _shade(values, signed)
        axis.imshow(shade, extent=(0, width, height, 0), interpolation="bilinear")
        axis.set_title(f"{word} (up to {values.max():.2g})".replace("$", r"\$"), fontsize=9)
    figure.supxlabel(label, fontsize=8)
    return figure


def static_matrix(data: xr.Dataset) -> Still:
    """As ``pair_matrix``, a ``matplotlib.figure.Figure``.

    Args:
        data: as ``matrix_of`` takes it.
    """
    words, values = [str(w).replace("$", r"\$") for w in data["word"].values], matrix_of(data)
    own = np.eye(len(words), dtype=bool)
    limit = float(np.abs(values[~own]).max()) or 1.0
    figure = _figure((1.6 + 0.7 * len(words), 1.4 + 0.5 * len(words)))
    axis = figure.subplots()
    axis.imshow(_shade(np.where(own, 0, values), True, limit), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        axis.text(
            j, i, f"{value:.3g}", ha="center", va="center", fontsize=8, color="#555" if i == j else "#111"
        )
    axis.set_xticks(range(len(words)), words, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(words)), words, fontsize=8)
    axis.set_title("below: redundancy; above: synergy (nats)", fontsize=9)
    return figure


def _shade(values: np.ndarray[Any, Any], signed: bool, most: float | None = None) -> np.ndarray[Any, Any]:
    """Colours [y, x, 4], clear where there is nothing."""
    low, high = limits(values, signed) if most is None else (-most, most)
    share = values / high if signed else (values - low) / ((high - low) or 1.0)
    alpha = 0.85 * np.abs(share).clip(0, 1)
    colours = np.where((share >= 0)[..., None], ORANGE, BLUE)
    return np.concatenate([colours, alpha[..., None]], -1)


def _figure(size: tuple[float, float]) -> Still:
    return Still(figsize=size, layout="constrained", dpi=120)
