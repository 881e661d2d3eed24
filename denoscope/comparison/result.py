"""Two models side by side, as a value: table, figures, page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch

from ..analysis.localisation.comparison import Comparison
from ..analysis.stored import Stored
from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.html import frame_table, panel, pictures
from ..report.page import written
from .page import render

SHOWN = 8


@dataclass(frozen=True, eq=False)
class ComparedModels(Stored):
    """What differs between two models.

    Args:
        data: of ``Comparison``; with ``pictures`` [model, picture, y, x, channel], uint8, prompt by prompt
            and seed by seed, and the weights that differ: ``changed`` and ``size`` [weight].
    """

    needed: ClassVar[frozenset[str]] = Comparison.needed | {"pictures", "changed", "size", "other"}

    @property
    def comparison(self) -> Comparison:
        """Site by site: how alike, and which of it matters."""
        names = [n for n in self.data.data_vars if n not in ("pictures", "changed", "size")]
        return Comparison(self.data[names])

    def __repr__(self) -> str:
        n = self.data.sizes["weight"]
        return f"ComparedModels({n} weights differ; {self.comparison!r})"

    def _repr_html_(self) -> str:
        images = torch.from_numpy(self.data["pictures"].values[:, :SHOWN]).movedim(-1, 2) / 255
        shown = [f"<div>{m}</div>{pictures(x, self.names[:SHOWN])}" for m, x in
                 zip(("the first model", "the second"), images, strict=True)]  # fmt: skip
        frame = self.to_frame().head(10).reset_index()
        return panel(repr(self), *shown, frame_table(frame))

    @property
    def names(self) -> list[str]:
        """What each picture is: prompt and seed."""
        return [f"{p}, seed {s}" for p in self.data["prompt"].values for s in self.data["seed"].values]

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of sites, what matters most first; see ``Comparison.to_frame``."""
        return self.comparison.to_frame(level)

    def weights(self) -> pd.DataFrame:
        """Return the weights that differ, the most changed first: weight, relative, size."""
        columns = {"weight": "weight", "relative": "changed", "size": "size"}
        return pd.DataFrame({name: self.data[of].values for name, of in columns.items()})

    def plot(self) -> Figure:
        """Return the pictures of both models, ``analysis.plots.before_after``."""
        first, second = (self.data["pictures"].isel(model=i, drop=True)[:SHOWN] for i in (0, 1))
        return figure("before_after", first, second, self.names[:SHOWN])

    @checked
    def page(self, path: str | Path, *, command: str = "") -> Path:
        """Write the page: one HTML file that works offline; return its path.

        Args:
            path: of the file; an older one is replaced.
            command: how the page says it was made.

        Raises:
            OSError: if it cannot be written.
        """
        frames = (self.to_frame().reset_index(), self.weights())
        return written(path, render(self.data, self.comparison, self.names, *frames, command))
