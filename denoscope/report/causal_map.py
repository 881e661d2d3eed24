"""A causal map as the page tells it: averaged, as shares where there is a whole to take shares of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from ..analysis.mediation.result import Mediation
from .plain import amount, plain_metric, plain_part, with_interval


@dataclass(frozen=True, eq=False)
class CausalMap:
    """A causal map, averaged over prompts, seeds and draws.

    Args:
        cells: ``mean``, ``low`` and ``high`` over (site, token or window).
        proportion: whether they are proportions of the whole effect; else they are in the metric's own units.
        total: the whole effect of the word: mean, low, high.
        metric: what was measured.
    """

    cells: xr.Dataset
    proportion: bool
    total: tuple[float, float, float]
    metric: str

    @classmethod
    def of(cls, cause: Mediation) -> CausalMap:
        """Average; take shares only where there is clearly a whole to take a share of."""
        found = cause.total()
        mean, low, high = (float(found[k]) for k in ("mean", "low", "high"))
        proportion = sure(low, high)
        cells = (cause.normalised if proportion else cause.indirect_effect).interval()
        return cls(cells, proportion, (mean, low, high), plain_metric(cause.data.attrs["metric"]))

    @property
    def part(self) -> str:
        """The component that the places are in, in words."""
        return plain_part(str(self.cells["site"].values[0]).split("/")[0])

    def ranked(self) -> pd.DataFrame:
        """All places; first the one whose restoration comes nearest to the clean run.

        Where the whole effect is small beside theirs, there is nothing to come near to: then the strongest.
        """
        frame = self.cells.to_dataframe().reset_index()
        whole, strongest = 1 if self.proportion else self.total[0], float(frame["mean"].abs().max())
        there = self.proportion or 2 * abs(whole) >= strongest
        far = (frame["mean"] - whole).abs() if there else -frame["mean"]
        return frame.iloc[far.argsort(kind="stable")].reset_index(drop=True)

    @property
    def scale(self) -> tuple[str, float]:
        """What the numbers are, and the one of full colour, for a figure."""
        if self.proportion:
            return "share of the effect", 1.0
        return f"change of the {self.metric}", float(abs(self.cells["mean"]).max()) or 1.0

    def number(self, place: pd.Series) -> str:
        """A number with its interval, for a table."""
        mean, low, high = (float(place[k]) for k in ("mean", "low", "high"))
        return with_interval(mean, low, high, self.proportion)

    def say(self, place: pd.Series) -> str:
        """A number with its interval."""
        mean, low, high = (float(place[k]) for k in ("mean", "low", "high"))
        if pd.isna(low):
            return f"{amount(mean, self.proportion)}, a single run without an interval"
        zero = "" if sure(low, high) else ", which holds 0"
        interval = f"{amount(low, self.proportion)} to {amount(high, self.proportion)}"
        return f"{amount(mean, self.proportion)} (95% interval {interval}{zero})"


def sure(low: float, high: float) -> bool:
    """Whether an interval leaves out 0; no interval (NaN) is not sure."""
    return bool(low > 0 or high < 0)
