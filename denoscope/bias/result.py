"""A bias that was measured, found and mitigated, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import xarray as xr

from ..analysis.features.mitigating import Mitigation
from ..analysis.intervals import proportion
from ..analysis.stored import Stored
from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.html import frame_table, panel
from ..report.page import written
from .page import NEITHER, render


@dataclass(frozen=True, eq=False)
class BiasStudy(Stored):
    """How unequal two classes are, which features tell them, and what pushing those features comes to.

    Args:
        data: of ``Mitigation``: ``label``, ``kept``, ``moved`` [way, sample], ``quality``, ``rows``; with
            ``pictures`` [way, sample, row, column, channel], uint8; the best features of each class,
            ``feature``, ``class_of``, ``score``, ``auc`` [line]; ``told_mean``, ``told_low``, ``told_high``,
            ``told_shuffled`` [step], how often a classifier tells the class.
    """

    needed: ClassVar[frozenset[str]] = Mitigation.needed | {
        "pictures", "feature", "class_of", "score", "auc", "told_mean", "classes", "towards", "strength",
        "reached", "missing",
    }  # fmt: skip

    @property
    def mitigation(self) -> Mitigation:
        """What the ways came to."""
        return Mitigation(self.data[["label", "kept", "moved", "quality", "rows"]])

    def __repr__(self) -> str:
        about = self.data.attrs
        goal = "" if about["reached"] else ", which does not make shares equal"
        push = f"at strength {about['strength']:.3g}{goal}"
        if "features" in about["missing"]:
            push = "no features to push"
        said = f"{' or '.join(about['classes'])}; towards {about['towards']!r}: {push}"
        return f"BiasStudy({said}; {self.mitigation!r})"

    def _repr_html_(self) -> str:
        frame = self.shares()
        return panel(repr(self), frame_table(frame))

    def plot(self) -> Figure:
        """Return how many pictures of each way show each class, as bars, ``analysis.plots.effect_bars``."""
        return figure("effect_bars", self.shares().rename(columns={"way": "measure", "class": "when"}))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a row for each way: discrepancy, kept, moved, quality, rows; see ``Mitigation.to_frame``."""
        return self.mitigation.to_frame(level)

    @checked
    def shares(self, level: float = 0.95) -> pd.DataFrame:
        """Return how many pictures of each way show each class, and neither: way, class, mean, low, high.

        Of all pictures, with Wilson intervals; shares are equal where both classes have the same.
        """
        label, classes = self.data["label"].astype(str), list(self.data.attrs["classes"])
        shown = xr.concat([*(label == c for c in classes), ~label.isin(classes)], "class").astype(float)
        found = proportion(shown.assign_coords({"class": [*classes, NEITHER]}), ["sample"], level)
        frame = found.transpose("way", "class").to_dataframe().reset_index()
        return frame[["way", "class", "mean", "low", "high"]]

    @checked
    def features(self) -> pd.DataFrame:
        """Return the best features of each class: class, feature, score, auc (.5 is chance)."""
        names = {"class": "class_of", "feature": "feature", "score": "score", "auc": "auc"}
        return pd.DataFrame({column: self.data[name].values for column, name in names.items()})

    @checked
    def page(self, path: str | Path, *, command: str = "") -> Path:
        """Write the page: one HTML file that works offline; return its path.

        Args:
            path: of the file; an older one is replaced.
            command: how the page says it was made.

        Raises:
            OSError: if it cannot be written.
        """
        frames = (self.to_frame(), self.shares(), self.features())
        return written(path, render(self.data, *frames, command))
