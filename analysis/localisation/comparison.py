"""What was found to differ between two models: how alike their activations are, and which of it matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..intervals import interval
from ..scores import Scores
from ..stored import Stored
from .scoring import shares


@dataclass(frozen=True, eq=False)
class Comparison(Stored):
    """How a second model differs from a first one, site by site.

    Args:
        data: ``cosine`` and ``relative`` [site, step, prompt, seed]: of the second model's activation b to
            the first one's, a, and |b - a| / |a|; ``first`` and ``second`` [prompt, seed]: the metric of
            their pictures; ``swapped`` [site, (window,) prompt, seed]: of the first with that site of the
            second.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"cosine", "relative", "first", "second", "swapped"})

    def __repr__(self) -> str:
        first, second = (float(self.data[k].mean()) for k in ("first", "second"))
        said = f"{self.data.attrs['metric']}: {first:.3g} and {second:.3g}"
        if first == second:
            said += ", so nothing to share out"
        return f"Comparison({said}; {self.data.sizes['site']} sites, {self.data.sizes['step']} steps)"

    def _repr_html_(self) -> str:
        frame = self.to_frame().reset_index()
        return panel(repr(self), frame_table(frame))

    @property
    def effect(self) -> Scores:
        """Share of the whole difference that a site brings: mean (swapped - first) / mean (second - first).

        Raises:
            ValueError: if the metric is the same for both models.
        """
        values = (self.data["swapped"] - self.data["first"]).transpose(*self.data["swapped"].dims)
        total = self.data["second"] - self.data["first"]
        return shares(values.assign_attrs(self.data.attrs), total, "the other model")

    @property
    def similarity(self) -> Scores:
        """Cosine of the activations, over sites and steps."""
        return Scores(self.data["cosine"].assign_attrs(self.data.attrs))

    @property
    def difference(self) -> Scores:
        """|b - a| / |a|, over sites and steps."""
        return Scores(self.data["relative"].assign_attrs(self.data.attrs))

    @checked
    def total(self, level: float = 0.95) -> xr.Dataset:
        """Whole difference second - first: ``mean``, ``low``, ``high``; if it holds 0, shares are noise."""
        return interval(self.data["second"] - self.data["first"], ("prompt", "seed"), level)

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of sites, what matters most first.

        Columns: the share (``effect``) with ``low`` and ``high``, NaN where the metric is the same for both
        models; ``cosine`` and ``relative``, over all steps.
        """
        alike = self.data[["cosine", "relative"]].mean(["step", "prompt", "seed"]).to_dataframe()
        alike = alike[["cosine", "relative"]]
        if float((self.data["second"] - self.data["first"]).mean()) == 0:
            return alike.assign(effect=np.nan, low=np.nan, high=np.nan)
        effect = self.effect
        frame = effect.to_frame(level).rename(columns={"mean": "effect"})
        return frame.join(alike, on="site").set_index(effect.places)

    @checked
    def plot(self, of: Literal["similarity", "difference", "effect"] = "similarity") -> Figure:
        """Return a map, ``analysis.plots.effect_map``: of sites and steps, or of what each site brings.

        Raises:
            ValueError: for the effect, if the metric is the same for both models; and another ``of``.
        """
        if of == "effect":
            return figure("effect_map", self.effect, "share of the difference")
        if of not in ("similarity", "difference"):
            raise UsageError(f"of is {of!r}; it is 'similarity', 'difference' or 'effect'")
        return getattr(self, of).plot({"similarity": "cosine", "difference": "relative difference"}[of])
