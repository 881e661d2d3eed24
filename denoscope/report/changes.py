"""All changes side by side: what each reached, what else it moved, what it cost, and which is best."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..analysis.edit_evaluation.appearance import AT_A_GLANCE
from ..analysis.intervals import interval, proportion
from ..models.drawn import Figure, figure
from ..models.errors import StateError
from ..models.html import frame_table, panel
from ..models.store.disk import write_bytes
from .paired import ahead, told

NOTHING, OUTRIGHT = "nothing done", "asked outright"
"""What stands beside the changes: the unedited model, and the same asked for what is wanted."""
WHILE_RUNNING = "while it runs"
"""Where a change lies that touches no weights."""
BESIDE = (NOTHING, OUTRIGHT)
OVER = ["prompt", "seed"]
MAIN = ("efficacy", "specificity")
Array: TypeAlias = NDArray[np.float64]
Bounds: TypeAlias = tuple[Array, Array, Array]
"""Mean, low and high of each change."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What changes came to.

    Args:
        data: of ``investigation.changes.judging.judged``.
        told: what each change is, by name.
        skipped: (analysis, why it offers nothing), and changes that could not be painted.
    """

    data: xr.Dataset
    told: Mapping[str, Mapping[str, Any]]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def judged(self) -> bool:
        """Whether a judge said what pictures show."""
        return bool(self.data.attrs["judged"])

    @property
    def goal_said(self) -> str:
        """What the changes are for, in words."""
        return str(self.data.attrs["goal_said"])

    @property
    def names(self) -> list[str]:
        """The changes that were painted, without what stands beside them."""
        return [n for n in map(str, self.data["change"].values) if n not in BESIDE]

    def _repr_html_(self) -> str:
        frame = self.to_frame()[["change", "analysis", *MAIN, "depth", "rows"]]
        return panel(self.goal_said, frame_table(frame))

    def plot(self) -> Figure:
        """Return efficacy and specificity of each change as bars, ``analysis.plots.effect_bars``."""
        frame = self.to_frame()
        parts = [
            frame[["change", name, f"{name}_low", f"{name}_high"]]
            .set_axis(["measure", "mean", "low", "high"], axis=1)
            .assign(when=name)
            for name in MAIN
        ]
        return figure("effect_bars", pd.concat(parts))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a row for each change, and for nothing and asking outright; numbers with low and high.

        ``efficacy``: share of pictures of the edited wording that show what is wanted; of a balance, how even
        the two attributes are: 1 for halves, 0 for one alone. ``generality``: the same in other wordings.
        ``robustness``: the same where painting starts from a half-noised picture of the old. ``specificity``:
        share of pictures of other things that show themselves. ``unmoved``: share of these that look as
        before at a glance. ``depth``: how much of the way from the old text to the wanted one goes what the
        network says of half-noised pictures of the old (0 to 1, unguided). ``quality``: fit with the text
        that should be shown. ``where`` the weights change, ``size``: how many numbers, ``rows``: of the
        denoiser to find strength or direction.
        Intervals are of prompts and seeds, and not of the choice of the best.
        """
        kinds, hit = self.data["kind"].values, self.data["hit"]
        alike = (self.data["colour"] <= AT_A_GLANCE).astype(float)
        reached = self._evened if self.data.attrs["goal"] == "balance" else _bounds
        shares = {
            "efficacy": reached(hit[:, kinds == "efficacy"], proportion, level),
            "generality": reached(hit[:, kinds == "generality"], proportion, level),
            "specificity": _bounds(hit[:, kinds == "specificity"], proportion, level),
            "unmoved": _bounds(alike[:, kinds == "specificity"], proportion, level),
            "robustness": reached(hit[:, kinds == "robustness"], proportion, level),
            "depth": _bounds(self.data["depth"].rename(asked="prompt"), interval, level),
            "quality": _bounds(self.data["fit"][:, kinds == "efficacy"], interval, level),
        }
        names = list(map(str, self.data["change"].values))
        told = [self.told.get(name, {}) for name in names]
        columns: dict[str, Any] = {"change": names, "analysis": [t.get("analysis", "") for t in told]}
        for name, (mean, low, high) in shares.items():
            columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        columns["where"] = [t.get("where", "") for t in told]
        columns |= {k: [t.get(k, 0) for t in told] for k in ("size", "rows")}
        return pd.DataFrame(columns)

    def to_parquet(self, path: str | Path) -> Path:
        """Write ``to_frame()`` as a Parquet file, whole or not at all; return the path.

        Raises:
            RuntimeError: without pyarrow; the message says what to install.
            OSError: if it cannot be written.
        """
        buffer = io.BytesIO()
        try:
            self.to_frame().to_parquet(buffer, index=False)
        except ImportError as error:
            raise StateError(
                "Parquet files need pyarrow, which is not there: pip install 'denoscope[tables]'"
            ) from error
        write_bytes(Path(path), buffer.getvalue())
        return Path(path)

    @staticmethod
    def _evened(values: xr.DataArray, kind_of: Any, level: float) -> Bounds:
        """How even two attributes are, 1 for halves, from the share of the first."""
        mean, low, high = _bounds(values, kind_of, level)
        ends = [1 - np.abs(2 * v - 1) for v in (low, high)]
        most = np.where((low <= 0.5) & (high >= 0.5), 1.0, np.maximum(*ends))
        return 1 - np.abs(2 * mean - 1), np.minimum(*ends), np.where(np.isnan(mean), np.nan, most)

    @cached_property
    def _frame(self) -> pd.DataFrame:
        return self.to_frame()

    @property
    def scores(self) -> dict[str, float]:
        """Efficacy times specificity of each change; NaN without a judge."""
        frame = self._frame.set_index("change")
        specificity = frame["specificity"].fillna(1.0)
        return {n: float(frame["efficacy"][n] * specificity[n]) for n in self.names}

    @property
    def worth(self) -> dict[str, Array]:
        """Efficacy times specificity of each change, seed by seed; of a balance, which no seed has, none."""
        if not self.judged or self.data.attrs["goal"] == "balance":
            return {}
        own, others = (
            self.data["hit"][:, self.data["kind"].values == k] for k in ("efficacy", "specificity")
        )
        kept = others.mean("prompt") if others.sizes["prompt"] else 1.0
        found = own.mean("prompt") * kept
        return {n: found.sel(change=n).values.astype(float) for n in self.names}

    @cached_property
    def ahead(self) -> pd.DataFrame:
        """By how much the best is ahead of each other change, and how often that comes by chance: ``p``."""
        if self.best is None or not self.worth:
            return pd.DataFrame({"change": [], "difference": [], "p": []})
        return ahead(self.best, self.worth)

    @cached_property
    def ranked(self) -> list[str]:
        """The changes by efficacy times specificity, the best first; as they came where nobody judged.

        Of equals the deepest goes first, then the one whose pictures fit best.
        """
        if not self.judged:
            return self.names
        scores = self.scores
        finer = self._frame.set_index("change")[["depth", "quality"]].fillna(0.0)
        return sorted(self.names, key=lambda n: (scores[n], *finer.loc[n]), reverse=True)

    @property
    def best(self) -> str | None:
        """The first of ``ranked``; None where nobody judged, or none helps."""
        if not self.judged or not self.names:
            return None
        return self.ranked[0] if self.scores[self.ranked[0]] > 0 else None

    @property
    def why(self) -> str:
        """Why the best is that one, and how sure that is."""
        if not self.judged:
            return "No judge says what pictures show, so nobody can say which change is best."
        best = self.best
        if best is None:
            return f"Under no change {self.goal_said} in any of these pictures, all else kept."
        frame = self._frame.set_index("change")
        row, plain = frame.loc[best], frame.loc[NOTHING]
        text = f"“{best}” has the largest efficacy times specificity: {row['efficacy']:.0%} reached"
        text += f" ({plain['efficacy']:.0%} with nothing done)"
        text += "" if np.isnan(row["specificity"]) else f", {row['specificity']:.0%} of other things kept"
        text += self._beside_equals(best)
        alike = [n for n in self.names if n != best and frame.loc[n, "efficacy_high"] >= row["efficacy_low"]]
        if alike:
            text += f". Its interval overlaps those of {len(alike)} of {len(self.names) - 1} others"
        if row["efficacy_low"] <= plain["efficacy_high"]:
            text += (
                ", and that of doing nothing" if alike else ". Its interval overlaps that of doing nothing"
            )
        seen = told(self.ahead, self.data.sizes["seed"])
        text += f". {seen}" if seen else ""
        return f"{text}. It was chosen on these pictures, so its own numbers flatter it a little."

    def _beside_equals(self, best: str) -> str:
        """What told the best from others with the same numbers; empty where there are none."""
        scores = self.scores
        equals = [n for n in self.names if n != best and scores[n] == scores[best]]
        if not equals:
            return ""
        frame = self._frame.set_index("change")
        for column, said in {"depth": "goes deepest", "quality": "fits its text best"}.items():
            others = frame.loc[equals, column].fillna(0.0)
            if frame.loc[best, column] > others.max():
                return f"; of {len(equals) + 1} with as much, it {said} ({frame.loc[best, column]:.2f})"
        return f"; {len(equals)} other{'s' * (len(equals) != 1)} came to as much"


def _bounds(values: xr.DataArray, kind_of: Any, level: float) -> Bounds:
    """The mean of each change with its interval; NaN where there is nothing, or nobody said it."""
    if values.size == 0 or bool(values.isnull().any()):
        nothing = np.full(values.sizes["change"], np.nan)
        return nothing, nothing, nothing
    found = kind_of(values, OVER, level)
    mean, low, high = (found[k].values.astype(float) for k in ("mean", "low", "high"))
    return mean, low, high
