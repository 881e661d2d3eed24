"""Features of a dictionary as they were found, as a value and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from ..analysis.stored import Stored
from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.errors import NotFoundError
from ..models.html import frame_table, panel
from ..report.page import written
from ..report.widgets import WithPage
from .page import render
from .telling import COLUMNS


@dataclass(frozen=True, eq=False)
class Atlas(Stored, WithPage):
    """Where features are on, what they tell, and what editing them does.

    Args:
        data: ``activity`` [feature, sample] and ``profile`` [feature, step], mean strengths; ``density``
            [feature], share of positions and steps where it is on; ``top`` [feature, place], samples,
            strongest first; ``maps`` [feature, place, y, x], mean strength over steps, where positions form a
            picture; ``pictures`` [sample, row, column, channel], uint8; ``edited`` [feature, scale, row,
            column, channel], the strongest sample with the feature so many times as strong; ``moved``
            [feature, scale], root mean square change of its latents; ``tells_...`` [line].
    """

    needed: ClassVar[frozenset[str]] = frozenset(
        {"activity", "profile", "density", "top", "pictures", "edited", "moved", "tells_auc", "site"}
    )

    def __repr__(self) -> str:
        s = self.data.sizes
        return f"Atlas({self.data.attrs['site']}: {s['feature']} features in {s['sample']} samples)"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame.head(20)))

    @checked
    def plot(self, feature: int | None = None) -> Figure:
        """Return the pictures where a feature is on most, strongest first, ``analysis.plots.picture_grid``.

        Args:
            feature: which; None is the first.

        Raises:
            LookupError: for a feature that is not in it.
        """
        known = [int(f) for f in self.data["feature"].values]
        if (feature := known[0] if feature is None else feature) not in known:
            raise NotFoundError(f"feature {feature} is not in this atlas; there are {known}")
        strongest = self.data["top"].sel(feature=feature).values.tolist()
        activity = self.data["activity"].sel(feature=feature).values
        names = [f"sample {i}: {activity[i]:.3g}" for i in strongest]
        return figure("picture_grid", self.data["pictures"].isel(sample=strongest), names)

    @checked
    def tells(self) -> pd.DataFrame:
        """Return words and labels that features tell: feature, kind, name, auc, low, high, tried.

        ``auc``: how often a sample with the name has more of the feature than one without; .5 is chance. It
        is of samples that did not choose the name among the ``tried`` ones; the interval is 95 %.
        """
        return pd.DataFrame({name: self.data[f"tells_{name}"].values for name in COLUMNS})

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return feature, density, activity, off, x2, x5 (how far each moves), best (of ``tells``)."""
        best = self.tells().groupby("feature", sort=False).first()
        said = {f: f"{r['name']} ({r['auc']:.2f})" for f, r in best.iterrows()}
        moved = self.data["moved"].values
        features = [int(f) for f in self.data["feature"].values]
        return pd.DataFrame({
            "feature": features,
            "density": self.data["density"].values,
            "activity": self.data["activity"].mean("sample").values,
            **{name: moved[:, i] for i, name in enumerate(("off", "x2", "x5"))},
            "best": [said.get(f, "") for f in features],
        })  # fmt: skip

    @checked
    def page(self, path: str | Path, *, command: str = "") -> Path:
        """Write the page: one HTML file with a search over features that works offline; return its path.

        Args:
            path: of the file; an older one is replaced.
            command: how the page says it was made.

        Raises:
            OSError: if it cannot be written.
        """
        return written(path, render(self.data, self.tells(), command))

    def _as_page(self) -> tuple[str, str, str]:
        title = f"Features of {self.data.attrs['site']}"
        return render(self.data, self.tells(), ""), title, "page('features.html')"
