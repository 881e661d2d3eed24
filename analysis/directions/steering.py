"""What steering did, strength by strength, beside other ways to the same end."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError
from ...models.html import frame_table, panel
from ...models.suggest import near
from ..intervals import interval
from ..stored import Stored
from .measuring import slope, spearman

OVER = ("prompt", "seed")


@dataclass(frozen=True, eq=False)
class Steering(Stored):
    """Metrics of pictures steered with several strengths; and of other texts and other weights.

    Args:
        data: ``steered`` [way, strength, metric, prompt, seed], where a way is the direction or a random one
            of equal length, and ``beside`` [other, metric, prompt, seed]: plain, and what it was compared
            with.
    """

    needed = frozenset({"steered", "beside", "metric", "prompt", "seed"})

    def __repr__(self) -> str:
        s = self.data["steered"]
        return f"Steering({dict(s.sizes)}; beside {', '.join(map(str, self.data['other'].values))})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @checked
    def plot(self, metric: str | None = None) -> Figure:
        """Return a metric along the strength, way by way; what stands beside is dotted.

        ``analysis.plots.interval_lines``.

        Args:
            metric: which; None is the first.

        Raises:
            LookupError: for a metric that was not measured.
        """
        known = [str(m) for m in self.data["metric"].values]
        name = known[0] if metric is None else metric
        if name not in known:
            raise NotFoundError(f"metric {name!r} was not measured; {near(name, known)}")
        frame = self.to_frame()
        own = frame[frame["metric"] == name].rename(columns={"way": "line"})
        return figure("interval_lines", own, "strength", name)

    @checked
    def monotone(self, level: float = 0.95) -> pd.DataFrame:
        """Return for each way and metric Spearman's correlation with strength, and the effect of strength 1.

        Both are means over samples (prompt and seed) with crossed t intervals; the effect is the line through
        strength 0, in the metric's units.
        """
        values = self.data["steered"]
        found = []
        for name, each in (("spearman", spearman(values)), ("effect", slope(values))):
            made = interval(each, OVER, level)
            found.append(
                made.rename({k: f"{name}{'' if k == 'mean' else f' {k}'}" for k in ("mean", "low", "high")})
            )
        frame = xr.merge(found, combine_attrs="drop").to_dataframe()
        return frame.reset_index()

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return each metric's mean and interval, by way and strength; NaN where a way has none."""
        steered = interval(self.data["steered"], OVER, level).to_dataframe().reset_index()
        beside = interval(self.data["beside"], OVER, level).to_dataframe().reset_index()
        frame = pd.concat([steered, beside.rename(columns={"other": "way"})], ignore_index=True)
        return frame[["way", "strength", "metric", "mean", "low", "high"]]

    @checked
    def changes(self, strength: float = 1.0, level: float = 0.95) -> pd.DataFrame:
        """Return how much each metric changed from the plain picture: at one strength, and beside.

        Raises:
            LookupError: for a strength that was not tried.
        """
        tried = self.data["strength"].values.tolist()
        if strength not in tried:
            raise NotFoundError(f"strength {strength} was not tried; there are {tried}")
        plain = self.data["beside"].sel(other="plain", drop=True)
        steered = self.data["steered"].sel(strength=strength, drop=True) - plain
        beside = self.data["beside"].drop_sel(other="plain") - plain
        both = xr.concat([steered, beside.rename(other="way")], "way")
        frame = interval(both, OVER, level).to_dataframe().reset_index()
        return frame[["way", "metric", "mean", "low", "high"]]
