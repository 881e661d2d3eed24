"""Depth of an edit, component by component: from what was measured at each cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..localisation.bootstrap import check_resampling, quantiles
from ..scores import load_store, save_store

Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Measure: TypeAlias = Literal["direction", "error"]
FLOOR = 0.05
"""A cut carries the concept where R's states, put in, take away more than this share of all that R does."""
TOLERANCE = 0.05
"""R's states on other things may move the output by this share of what they do at the concept."""

UNTOUCHED = "not touched: as before to the bit"
ODD = "not comparable: R's states change other things too"
BROKEN = "broken: other things are hit as well"


@dataclass(frozen=True, eq=False)
class Depth:
    """What the states of other models do, put into the clean one.

    Args:
        data: ``along`` [bin, source, cut, picture]: how far the output moves along what R's whole component
            does; ``length`` of that, squared; ``worse``: by how much the error to the true noise grows; and
            on pictures of other things ``kept_moved``, squared, and ``kept_worse``. Sources: edited (U),
            retained (R), perhaps second (F2).
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        told = [f"{r.component} {r.depth:.2f} ({r.state})" for r in self.to_frame().itertuples()]
        return f"Depth({'; '.join(told)})"

    def _repr_html_(self) -> str:
        frames = (self.to_frame(), self.cuts())
        return panel(repr(self), *(frame_table(f) for f in frames))

    @checked
    def to_frame(
        self,
        of: Measure = "direction",
        level: float = 0.95,
        n_resamples: int = 500,
        seed: int = 0,
        tolerance: float = TOLERANCE,
    ) -> pd.DataFrame:
        """Return a table with a row for each component.

        ``depth``, ``low``, ``high``: the mean over the cuts that carry the concept, weighted by how much, of
        the share that the edit takes away; each share is clipped to 0..1, ``unclipped`` is not. ``twin``: the
        same on other things; where it is not near 0 the edit broke the model. ``cuts``: how many carry it;
        ``not_comparable``: how many do not count, for there R's states change other things too. ``state``
        says what to make of it. Intervals are percentiles of a bootstrap over pictures.

        Args:
            of: ``"direction"``: along what R does; ``"error"``: by the error to the true noise.
            level: how often such intervals hold the true depth.
            n_resamples: how many.
            seed: of the resamples.
            tolerance: R's states on other things may move the output by this share of what they do at the
                concept, in squares; where they do more, a cut cannot be compared.
        """
        self._check(of)
        check_resampling(level, n_resamples)
        if not 0 <= seed < 2**63:
            raise UsageError(f"seed is {seed}; it is a whole number from 0 up")
        rows = []
        for component in dict.fromkeys(map(str, self.data["component"].values)):
            part = self.data.isel(cut=np.flatnonzero(self.data["component"].values == component))
            chosen, odd = self._carrying(part, of, tolerance)
            share, unclipped = _depth(_shares(part, of), chosen)
            drawn = _resampled(part, of, n_resamples, seed)
            each = [_depth({k: x[i] for k, x in drawn.items()}, chosen)[0] for i in range(n_resamples)]
            low, high = quantiles(np.array(each), level) if chosen.any() else (np.nan, np.nan)
            twin = _depth(_shares(part, of, kept=True), chosen)[0]
            state = _state(part, share, twin, chosen, odd)
            if state == UNTOUCHED:
                share = low = high = unclipped = twin = 0.0
            told = (component, share, float(low), float(high), unclipped, twin)
            rows.append((*told, int(chosen.sum()), int(odd.sum()), state))
        numbers = ["component", "depth", "low", "high", "unclipped", "twin"]
        columns = [*numbers, "cuts", "not_comparable", "state"]
        return pd.DataFrame(rows, columns=columns)

    @checked
    def cuts(self, of: Measure = "direction", tolerance: float = TOLERANCE) -> pd.DataFrame:
        """Return a table with a row for each cut: what states of R, U, F2 take away, and whether it counts.

        ``ratio`` is U's share of R's, unclipped; ``moves_others``: what R's states do to other things, as a
        share of what they do at the concept.
        """
        self._check(of)
        shares, kept = _shares(self.data, of), _kept_moved(self.data)
        carried, odd = self._carrying(self.data, of, tolerance)
        net = shares["retained"] - shares["second"]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = {
                "cut": self.data["cut"].values,
                "component": self.data["component"].values,
                **shares,
                "ratio": np.where(carried, shares["edited"] / net, np.nan),
                "moves_others": kept / shares["retained"] if of == "direction" else kept,
                "carries": carried,
                "comparable": ~odd,
            }
        return pd.DataFrame(columns)

    @checked
    def maps(self, source: str = "retained") -> xr.DataArray:
        """Return the direction's share at each cut and bin, [cut, bin].

        Args:
            source: retained, edited or second.

        Raises:
            ValueError: for another source.
        """
        known = list(map(str, self.data["source"].values))
        if source not in known:
            raise UsageError(f"source is {source!r}; there are {', '.join(known)}")
        along = self.data["along"].sel(source=source, drop=True).mean("picture")
        share: xr.DataArray = along / self.data["length"].mean("picture")
        return share.transpose("cut", "bin")

    @checked
    def plot(self, source: str = "retained") -> Figure:
        """Return the map of a source, ``analysis.plots.effect_map``."""
        mean = self.maps(source).drop_vars(["component", "log_snr"], errors="ignore")
        mean = mean.rename(cut="site").assign_coords(bin=[f"part {i + 1}" for i in range(mean.sizes["bin"])])
        none = xr.full_like(mean, np.nan)
        return figure("effect_map", xr.Dataset({"mean": mean, "low": none, "high": none}), "share of R", 1.0)

    @checked
    def save(self, path: str | Path) -> None:
        """Write a zarr store; it appears under its name only when whole.

        Raises:
            FileExistsError: if the path exists.
        """
        save_store(self.data, path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Depth:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is nothing at the path.
            ValueError: if it holds something else.
        """
        data = load_store(path)
        if not {"along", "length", "kept_moved"} <= set(data):
            held = sorted(map(str, data))
            raise UsageError(f"{path} holds {held}, no depth; give a store written by Depth.save")
        return cls(data)

    def _carrying(self, part: xr.Dataset, of: Measure, tolerance: float) -> tuple[Mask, Mask]:
        """Cuts that carry the concept, and those that cannot be compared."""
        shares, direction = _shares(part, of), _shares(part, "direction")
        net, floor = shares["retained"] - shares["second"], FLOOR if of == "direction" else 0.0
        drawn = _resampled(part, of, 500, 0)
        sure = np.quantile(drawn["retained"] - drawn["second"], 0.025, axis=0) > 0
        most = np.maximum(direction["retained"], 0)
        with np.errstate(invalid="ignore"):
            odd = (most > FLOOR) & (_kept_moved(part) > tolerance * most)
            return (net > floor) & sure & ~odd, odd

    @staticmethod
    def _check(of: str) -> None:
        if of not in ("direction", "error"):
            raise UsageError(f"of is {of!r}; it is 'direction' or 'error'")


def _state(part: xr.Dataset, depth: float, twin: float, chosen: Mask, odd: Mask) -> str:
    """What to make of a component's depth."""
    edited = part.sel(source="edited")
    if all(bool((edited[name] == 0).all()) for name in ("worse", "kept_worse", "along", "kept_moved")):
        return UNTOUCHED
    if not chosen.any():
        return ODD if odd.any() else "undefined: no cut carries it"
    return BROKEN if twin > max(FLOOR, depth / 4) else "measured"


def _shares(part: xr.Dataset, of: Measure, *, kept: bool = False) -> dict[str, Array]:
    """What each source's states take away at each cut, [cut]; with ``kept``, what the edit does elsewhere."""
    n = part.sizes["picture"]
    found = {name: x[0] for name, x in _weighed(part, of, np.full((1, n), 1 / n)).items()}
    if kept and of == "error":
        found["edited"] = part["kept_worse"].sel(source="edited").mean(("bin", "other")).values
    elif kept:
        found["edited"] = _kept_moved(part, "edited")
    return found


def _resampled(part: xr.Dataset, of: Measure, n: int, seed: int) -> dict[str, Array]:
    """The same for resamples of the pictures, [resample, cut]; those of other things stay."""
    source, size = np.random.default_rng(seed), part.sizes["picture"]
    weights = source.multinomial(size, [1 / size] * size, size=n) / size
    return _weighed(part, of, weights)


def _weighed(part: xr.Dataset, of: Measure, weights: Array) -> dict[str, Array]:
    """Shares under weights of the pictures [draw, picture]; F2's are 0 where there is none: [draw, cut]."""
    name, below = ("worse", None) if of == "error" else ("along", part["length"])
    values, found = part[name].mean("bin"), dict[str, Array]()
    for source in map(str, part["source"].values):
        found[source] = weights @ values.sel(source=source).transpose("picture", "cut").values
        if below is not None:
            length = weights @ below.mean("bin").transpose("picture", "cut").values
            found[source] = found[source] / np.where(length > 0, length, np.nan)
    found.setdefault("second", np.zeros_like(found["edited"]))
    return found


def _kept_moved(part: xr.Dataset, source: str = "retained") -> Array:
    """How far states of a source move other things, as a share of what R does to the concept, [cut]."""
    moved = part["kept_moved"].sel(source=source).mean(("bin", "other"))
    length = part["length"].mean(("bin", "picture"))
    share: Array = (moved / length.where(length > 0)).values
    return share


def _depth(shares: dict[str, Array], chosen: Mask) -> tuple[float, float]:
    """The weighted mean over the chosen cuts, clipped and not; NaN where there is none."""
    net = (shares["retained"] - shares["second"])[chosen]
    if not chosen.any() or net.sum() <= 0:
        return np.nan, np.nan
    ratio = shares["edited"][chosen] / net
    return float((net * ratio.clip(0, 1)).sum() / net.sum()), float((net * ratio).sum() / net.sum())
