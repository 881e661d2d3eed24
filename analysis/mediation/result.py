"""What causal mediation found: clean, corrupted and restored scores, and the effects between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..intervals import interval
from ..scores import UNITS, Scores
from ..stored import Stored

ATTRIBUTES = {"metric", "corruption", "rows", "reference_rows"}


@dataclass(frozen=True, eq=False)
class Mediation(Stored):
    """What clean, corrupted and restored runs scored.

    Args:
        data: ``clean`` [prompt, seed], ``corrupted`` [prompt, seed, draw] and ``restored``
            [site, (token | head | window), prompt, seed, draw], of the same shape perhaps ``blocked``: clean
            but for the place; provenance in ``data.attrs``.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"clean", "corrupted", "restored", *ATTRIBUTES})

    def __repr__(self) -> str:
        clean, corrupted = (float(self.data[k].mean()) for k in ("clean", "corrupted"))
        sizes = ", ".join(f"{n} {d}s" for d, n in self.data["restored"].sizes.items())
        return (
            f"Mediation({self.data.attrs['metric']}: clean {clean:.3g}, corrupted {corrupted:.3g}; {sizes})"
        )

    def _repr_html_(self) -> str:
        total = ", ".join(f"{k} {float(v):.3f}" for k, v in self.total().items())
        frame = self.to_frame()
        return panel(f"{self!r}; total effect: {total}", frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of places: share of the total effect with its interval, the best first.

        Where the corruption changed nothing there are no shares; the columns are then of the indirect effect.
        """
        nothing = float((self.clean - self.corrupted).mean()) == 0
        return (self.indirect_effect if nothing else self.normalised).to_frame(level)

    def plot(self) -> Figure:
        """Return a heat map of the shares, ``analysis.plots.effect_map``.

        Raises:
            ValueError: if the corruption changed nothing.
        """
        return figure("effect_map", self, "share of the effect")

    @property
    def clean(self) -> xr.DataArray:
        """Scores of the clean runs, [prompt, seed]."""
        return self.data["clean"]

    @property
    def corrupted(self) -> xr.DataArray:
        """Scores of the corrupted runs, [prompt, seed, draw]."""
        return self.data["corrupted"]

    @property
    def restored(self) -> Scores:
        """Scores of the restored runs."""
        return self._scores(self.data["restored"])

    @property
    def indirect_effect(self) -> Scores:
        """Indirect effect: restored - corrupted, of the same prompt, seed and noise draw."""
        return self._scores(self.data["restored"] - self.corrupted)

    @property
    def direct_effect(self) -> Scores:
        """Direct effect: blocked - corrupted, what the text does by all ways but this place (Pearl 2001).

        The total effect less it is what the place is necessary for; ``indirect_effect`` is what it suffices
        for. They add up only where effects are additive.

        Raises:
            ValueError: if no blocked runs were made (``direct=True``).
        """
        return self._scores(self._blocked() - self.corrupted)

    @property
    def necessary(self) -> Scores:
        """Proportion of the total effect that is gone with the place: mean (clean - blocked) / mean total.

        Raises:
            ValueError: as ``direct_effect`` and ``normalised``.
        """
        return self._scores(self.clean - self._blocked(), self._total())

    @property
    def normalised(self) -> Scores:
        """Proportion of the total effect: mean (restored - corrupted) / mean (clean - corrupted).

        0 is corrupted, 1 is clean. Means are over prompts, seeds and draws, taken before dividing.

        Raises:
            ValueError: if the corruption changed nothing.
        """
        return self._scores(self.data["restored"] - self.corrupted, self._total())

    def _blocked(self) -> xr.DataArray:
        if "blocked" not in self.data:
            raise UsageError("no run has a place blocked; trace with direct=True")
        return self.data["blocked"]

    def _total(self) -> xr.DataArray:
        total = self.clean - self.corrupted
        if float(total.mean()) == 0:
            metric, corruption = self.data.attrs["metric"], self.data.attrs["corruption"]
            raise UsageError(
                f"the corruption {corruption} left the mean of {metric} as it was, so"
                " there is no total effect to take a proportion of; corrupt more, or use another metric"
            )
        return total

    @checked
    def total(self, level: float = 0.95) -> xr.Dataset:
        """Total effect clean - corrupted: ``mean``, ``low``, ``high``.

        Where this interval holds 0, ``normalised`` divides by noise: read ``indirect_effect`` instead.
        """
        return interval(self.clean - self.corrupted, UNITS, level)

    @checked
    def causal(self, above: float = 0.5) -> pd.DataFrame:
        """Return the places whose normalised mean exceeds a threshold, the best first, with intervals.

        The default is the midpoint between corrupted and clean.
        """
        frame = self.normalised.to_frame()
        return frame[frame["mean"] > above]

    @property
    def rows(self) -> int:
        """Denoiser rows that were computed (a guided step of one sample is two)."""
        return int(self.data.attrs["rows"])

    @property
    def reference_rows(self) -> int:
        """Denoiser rows that the published scheme computes for the same scores (docs/mediation.md)."""
        return int(self.data.attrs["reference_rows"])

    def _scores(self, values: xr.DataArray, denominator: xr.DataArray | None = None) -> Scores:
        values = values.transpose(*self.data["restored"].dims)
        return Scores(values.assign_attrs(self.data.attrs), denominator)
