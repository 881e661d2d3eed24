"""What steering painted, strength by strength, as a value: table, figures, page and widget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
import xarray as xr

from ..analysis.intervals import interval
from ..analysis.stored import Stored
from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.html import frame_table, panel, pictures
from ..report.page import written
from ..report.widgets import widget
from .page import render, shown

MOVED = "moved"
"""How far the latents moved from the plain ones: root mean square."""
OVER = ("prompt", "seed")
SHOWN = 4


@dataclass(frozen=True, eq=False)
class Steered(Stored):
    """Pictures of prompts and seeds, steered with several strengths, and what was measured on each.

    Args:
        data: ``pictures`` [strength, prompt, seed, row, column, channel], uint8; ``values`` [strength,
            metric, prompt, seed]. The metric "moved" is the root mean square change of the latents.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"pictures", "values", "direction", "subject"})

    def __repr__(self) -> str:
        sizes = {name: self.data.sizes[name] for name in ("strength", *OVER)}
        return f"Steered({sizes}; measured {', '.join(map(str, self.data['metric'].values))})"

    def _repr_html_(self) -> str:
        row = self.data["pictures"].isel(prompt=0, seed=0)
        images = torch.from_numpy(row.values).movedim(-1, 1) / 255
        names = [f"strength {s:g}" for s in row["strength"].values]
        frame = self.to_frame()
        return panel(repr(self), pictures(images, names, len(names)), frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return each metric's mean over prompts and seeds: strength, metric, mean, low, high.

        An interval over one prompt and one seed is not known: NaN.
        """
        values = self.data["values"]
        frame = interval(values, OVER, level).to_dataframe().reset_index()
        return frame[["strength", "metric", "mean", "low", "high"]]

    def plot(self) -> Figure:
        """Return a figure of the pictures, a row for each of the first four: strength by strength."""
        rows = self.data["pictures"].stack(sample=OVER).transpose("sample", "strength", ...)[:SHOWN]
        names = [f"{s:+g}" if s else "plain" for s in rows["strength"].values]
        over = ("sample", "y", "x", "channel")
        shown = xr.DataArray(rows.values.reshape(-1, *rows.shape[2:]), dims=over)
        return figure("picture_grid", shown, names * len(rows), across=len(names))

    @checked
    def page(self, path: str | Path, *, command: str = "") -> Path:
        """Write the page: one HTML file with a slider over the strengths that works offline; return its path.

        Args:
            path: of the file; an older one is replaced.
            command: how the page says it was made.

        Raises:
            OSError: if it cannot be written.
        """
        return written(path, render(self.data, self.to_frame(), command))

    def widget(self) -> Any:
        """Return the slider as a widget for notebooks: the same script as the page's.

        Raises:
            RuntimeError: without anywidget, which the extra "notebooks" brings.
        """

        def make() -> Any:
            from .widget import Slider  # noqa: PLC0415  # anywidget is an extra

            return Slider(shown=shown(self.data, self.to_frame()))

        return widget(make, "the slider", "page('steered.html')")
