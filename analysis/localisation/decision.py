"""When a concept was decided: insertion and removal curves, and the times at which they fall and rise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.isotonic import isotonic_regression

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..intervals import interval, proportion
from ..stored import Stored
from .bootstrap import Array, check_resampling, quantiles, repeated, resamples

Measure: TypeAlias = Literal["score", "yes", "nearness"]
OVER = ("prompt", "seed")


@dataclass(frozen=True, eq=False)
class Decision(Stored):
    """What runs scored whose prompt was switched on the way.

    Args:
        data: ``score`` [direction, switch, prompt, seed]: the metric of runs that read one prompt for so many
            steps (``switch``) and then the other; direction "insertion" begins without the concept, "removal"
            with it. ``nearness``, of the same dims: how near the final latents lie to the pure run with the
            concept (1) rather than to the one without (0). Coordinates: ``sigma`` and ``log_snr`` where the
            prompt is switched, ``concept`` of each prompt; provenance, ``rows`` and ``warning`` in attrs.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"score", "nearness", "concept", "log_snr"})

    def __repr__(self) -> str:
        sizes = self.data.sizes
        warning = f"; {self.warning}" if self.warning else ""
        size = f"{sizes['switch'] - 1} switches, {sizes['seed']} seeds"
        return f"Decision({', '.join(self.concepts)}; {size}{warning})"

    def _repr_html_(self) -> str:
        frames = (self.to_frame(), self.changes())
        return panel(repr(self), *(frame_table(f) for f in frames))

    @property
    def concepts(self) -> list[str]:
        """The concepts, in order; each has a curve of its own."""
        return list(dict.fromkeys(map(str, self.data["concept"].values)))

    @property
    def warning(self) -> str:
        """What blurs the curves; empty if nothing does."""
        return str(self.data.attrs.get("warning", ""))

    @property
    def rows(self) -> int:
        """Denoiser rows that were computed (a guided step of one sample is two)."""
        return int(self.data.attrs["rows"])

    @checked
    def total(self, level: float = 0.95) -> xr.Dataset:
        """Return with - without, of the pure runs: ``mean``, ``low``, ``high`` [concept].

        Where this interval holds 0 there is nothing to decide, and times are noise.
        """
        found = [interval(ends[1] - ends[0], OVER, level) for _, ends in self._parts("score")]
        return xr.concat(found, pd.Index(self.concepts, name="concept"))

    @checked
    def curves(self, of: Measure = "score", level: float = 0.95) -> xr.Dataset:
        """Return normalised levels ``mean``, ``low``, ``high`` [concept, direction, switch].

        0 is the pure run without the concept, 1 the one with it; a ratio of means over prompts and seeds.

        Args:
            of: ``"score"``; ``"yes"``, the share of runs that score above the middle between both ends;
                ``"nearness"``, of final latents, which asks no judge.
            level: how often such intervals hold the true level.
        """
        found = []
        for values, (low, high) in self._parts(of):
            found.append(interval(values - low, OVER, level, denominator=high - low))
        return xr.concat(found, pd.Index(self.concepts, name="concept"))

    @checked
    def times(
        self, of: Measure = "score", level: float = 0.95, n_resamples: int = 1000, seed: int = 0
    ) -> pd.DataFrame:
        """Return when each concept is decided: columns concept, time, step, low, high, sigma, log_snr.

        ``open`` is the step where insertion falls through the half level, ``lock`` where removal rises
        through it, on pool-adjacent-violators fits, interpolated; ``hysteresis`` is lock - open. Intervals
        are percentiles of a bootstrap over seeds, crossed with prompts; NaN for a single run. A concept
        without any effect has no time: NaN.

        Args:
            of: as in ``curves``.
            level: how often such intervals hold the true time.
            n_resamples: how many.
            seed: of the resamples.
        """
        check_resampling(level, n_resamples)
        rows = []
        for concept, (values, ends) in zip(self.concepts, self._parts(of), strict=True):
            found, units = self._times(values, ends), repeated(values)
            low = high = np.full(3, np.nan)
            if units:
                drawn = resamples(units, n_resamples, seed)
                each = [self._times(values.isel(d), (ends[0].isel(d), ends[1].isel(d))) for d in drawn]
                low, high = quantiles(np.stack(each), level)
            for i, name in enumerate(("open", "lock", "hysteresis")):
                where = self._level(found[i]) if name != "hysteresis" else (np.nan, np.nan)
                rows.append((concept, name, found[i], low[i], high[i], *where))
        return pd.DataFrame(rows, columns=["concept", "time", "step", "low", "high", "sigma", "log_snr"])

    @checked
    def changes(self, level: float = 0.95) -> pd.DataFrame:
        """Return the share of runs that change sides more than once along the switches, with its interval.

        Their curves are no steps; where many do, the times say little about a single run.
        """
        rows = []
        for concept, (values, _) in zip(self.concepts, self._parts("yes"), strict=True):
            more = (abs(values.diff("switch")).sum("switch") > 1).astype(float)
            found = proportion(more, OVER, level)
            for direction in ("insertion", "removal"):
                share = [float(found[k].sel(direction=direction)) for k in ("mean", "low", "high")]
                rows.append((concept, direction, *share))
        return pd.DataFrame(rows, columns=["concept", "direction", "changes more than once", "low", "high"])

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the times of the scores; see ``times``."""
        return self.times("score", level)

    @checked
    def plot(self, of: Measure = "score") -> Figure:
        """Return the curves, ``analysis.plots.level_curves``; of a concept without effect there are none."""
        return figure("level_curves", self.curves(of))

    def _parts(self, of: Measure) -> Iterator[tuple[xr.DataArray, tuple[xr.DataArray, xr.DataArray]]]:
        """For each concept the values, and those of the pure runs without and with it [prompt, seed]."""
        if of not in ("score", "yes", "nearness"):
            raise UsageError(f"of is {of!r}; it is 'score', 'yes' or 'nearness'")
        for concept in self.concepts:
            mine = np.flatnonzero(self.data["concept"].values == concept)
            values = self.data["nearness" if of == "nearness" else "score"].isel(prompt=mine)
            low, high = _ends(values)
            if of == "yes":
                middle, up = (low.mean() + high.mean()) / 2, high.mean() >= low.mean()
                values = ((values > middle) if bool(up) else (values < middle)).astype(float)
                low, high = _ends(values)
            yield values, (low, high)

    def _times(self, values: xr.DataArray, ends: tuple[xr.DataArray, xr.DataArray]) -> Array:
        """Open, lock and hysteresis of values [direction, switch, prompt, seed]."""
        low, high = (float(e.mean()) for e in ends)
        if high == low:
            return np.full(3, np.nan)
        levels = (values.mean(OVER).transpose("direction", "switch").values - low) / (high - low)
        at = self.data["switch"].values.astype(float)
        opened, locked = _half(at, levels[0]), _half(at, 1 - levels[1])
        return np.array([opened, locked, locked - opened])

    def _level(self, step: float) -> tuple[float, float]:
        """Sigma and log-SNR at a time between steps; in logarithms a line. NaN after the last."""
        logs, at = self.data["log_snr"].values, self.data["switch"].values
        known = np.isfinite(logs)
        if not known.any() or np.isnan(step):
            return np.nan, np.nan
        log = float(np.interp(step, at[known], logs[known], left=np.nan, right=np.nan))
        return float(np.exp(-log / 2)), log


def _ends(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The pure runs: without the concept, and with it."""
    first = values.sel(direction="insertion", drop=True)
    return first.isel(switch=-1, drop=True), first.isel(switch=0, drop=True)


def _half(at: Array, falling: Array) -> float:
    """Where the monotone fit of levels that fall from 1 to 0 crosses the half; the middle of a plateau."""
    fit = isotonic_regression(falling, increasing=False)
    last, first = np.flatnonzero(fit > 0.5)[-1], np.flatnonzero(fit < 0.5)[0]
    if first == last + 1:
        return float(at[last] + (fit[last] - 0.5) / (fit[last] - fit[first]) * (at[first] - at[last]))
    return float((at[last + 1] + at[first - 1]) / 2)
