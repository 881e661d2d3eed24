"""What came back: a table by probe, with intervals over seeds, beside the controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel, pictures
from ..intervals import interval, proportion
from ..scores import load_store, save_store

NAMES = {"edited": "edited", "clean": "control: clean model", "never": "control: a word never learnt"}
_COORDINATES = ("probe", "attack", "who", "budget", "rows", "is_clean")
_SHOWN = ("probe", "attack", "who", "budget", "rows", "mean", "low", "high", "recovered", "psnr")


@dataclass(frozen=True, eq=False)
class Robustness:
    """How far what was edited away comes back when somebody tries.

    Args:
        data: ``shown``, ``other`` [trial, seed]: how far each picture shows what was edited away, and what is
            meant instead; ``fit``: how well it fits the prompt by the judge's similarity (a picture that
            shows a word and fits nothing is broken); ``psnr`` of rebuilt pictures; ``pictures`` of the first
            seed. Coordinates of a trial: ``probe``, ``attack``, ``who`` (edited, clean, never), ``budget`` in
            the probe's own unit, ``rows`` that the attack took, and ``is_clean``: all pictures equal those of
            the clean model to the bit. Trials "plain" are the prompt itself.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        about, instead = (self.data.attrs.get(k, "?") for k in ("about", "instead"))
        before, after = (float(self._plain(who).mean()) for who in ("clean", "edited"))
        told = f"{about} -> {instead}: {before:.2f}, edited {after:.2f}"
        best = ", ".join(f"{row.probe} {row.mean:.2f}" for row in self.strongest().itertuples())
        return f"Robustness({told}; {best})"

    def _repr_html_(self) -> str:
        shown = torch.from_numpy(self.data["pictures"].values).permute(0, 3, 1, 2) / 255
        frame, names = self.to_frame(), list(_SHOWN)
        rows = list(zip(*(self.data[c].values for c in ("probe", "attack", "who")), strict=True))
        captions = [f"{probe}: {attack} ({who})" for probe, attack, who in rows]
        kept = [i for i, (probe, _, who) in enumerate(rows) if who == "edited" or probe == "plain"][:24]
        return panel(
            repr(self),
            pictures(shown[kept], [captions[i] for i in kept]),
            frame_table(frame[names]),
        )

    @property
    def reaches_clean(self) -> bool:
        """Whether clean text rows bring the clean picture back to the bit: the edit is in text encoders."""
        mine = (self.data["probe"] == "clean_embeddings") & (self.data["attack"] == "prompt and empty text")
        return bool(mine.any()) and bool(self.data["is_clean"].values[mine.values].all())

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table with one row for each trial.

        ``mean``, ``low``, ``high``: of ``shown``, over seeds. ``other``, ``fit``, ``psnr``: means.
        ``recovered``, ``recovered_low``, ``recovered_high``: (attack - edited) / (clean - edited), a ratio of
        means over the same seeds; NaN where the edit took nothing away. ``best``: the most of this attack up
        to this budget.
        """
        shown = self.data["shown"].drop_vars(_COORDINATES)
        answers = bool(shown.isin((0, 1)).all())
        found = (proportion if answers else interval)(shown, ["seed"], level)
        columns: dict[str, Any] = {c: self.data[c].values for c in _COORDINATES}
        columns |= {k: found[k].values for k in ("mean", "low", "high")}
        columns |= {k: self.data[k].mean("seed", skipna=False).values for k in ("other", "fit", "psnr")}
        frame = pd.DataFrame(columns | self._recovered(shown, level))
        frame["best"] = frame.groupby(["probe", "attack", "who"], sort=False)["mean"].cummax()
        return frame

    def strongest(self) -> pd.DataFrame:
        """Return the attack of each probe that brings back most on the edited model, from ``to_frame``.

        Completions with more than half of the run by the clean model are left out: what they paint is the
        clean model's.
        """
        frame = self.to_frame()
        frame = frame[(frame["who"] == "edited") & (frame["probe"] != "plain")]
        steps = frame.loc[frame["probe"] == "completion", "budget"].max()
        frame = frame[(frame["probe"] != "completion") | (frame["budget"] <= steps / 2)]
        best = frame.groupby("probe", sort=False)["mean"].idxmax()
        return frame.loc[best].reset_index(drop=True)

    @checked
    def plot(self, level: float = 0.95) -> Figure:
        """Return bars of the strongest attack of each probe and of its control, ``plots.effect_bars``."""
        return figure("effect_bars", self.bars(level))

    @checked
    def bars(self, level: float = 0.95) -> xr.Dataset:
        """Return ``mean``, ``low``, ``high`` [measure, when]: each probe's strongest attack, and its control.

        The control is that of the same budget. First stands the prompt itself, after the edit and before.
        """
        frame = self.to_frame(level)
        plain = frame[frame["probe"] == "plain"].set_index("who")
        lines = {"the prompt itself": (plain.loc["edited"], plain.loc["clean"])}
        for row in self.strongest().itertuples():
            same = frame[(frame["probe"] == row.probe) & (frame["who"] == "clean")]
            near = same[same["budget"].fillna(-1) == (-1 if np.isnan(row.budget) else row.budget)]
            control = near.loc[near["mean"].idxmax()] if len(near) else None
            lines[f"{row.probe}: {row.attack}"] = (pd.Series(row._asdict()), control)
        names = [NAMES["edited"], NAMES["clean"]]
        values = {
            k: [[np.nan if x is None else float(x[k]) for x in pair] for pair in lines.values()]
            for k in ("mean", "low", "high")
        }
        dims = ("measure", "when")
        return xr.Dataset(
            {k: (dims, np.array(v)) for k, v in values.items()}, {"measure": list(lines), "when": names}
        )

    @checked
    def save(self, path: str | Path) -> None:
        """Write a zarr store; it appears under its name only when whole.

        Raises:
            FileExistsError: if the path exists.
        """
        save_store(self.data, path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Robustness:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is nothing at the path.
            ValueError: if it holds something else.
        """
        data = load_store(path)
        if not {"shown", "other", "psnr"} <= set(data):
            held = sorted(map(str, data))
            raise UsageError(f"{path} holds {held}, no robustness; give a store written by Robustness.save")
        return cls(data)

    def _recovered(self, shown: xr.DataArray, level: float) -> dict[str, Any]:
        """Shares of what the edit took away, with their intervals; by column."""
        after, before = self._plain("edited"), self._plain("clean")
        lost, names = before - after, ("recovered", "recovered_low", "recovered_high")
        if float(lost.mean()) <= 0:
            return dict.fromkeys(names, np.nan)
        share = interval(shown - after, ["seed"], level, denominator=lost)
        own = self.data["who"].values != "never"
        kept = [np.where(own, share[k].values, np.nan) for k in ("mean", "low", "high")]
        return dict(zip(names, kept, strict=True))

    def _plain(self, who: str) -> xr.DataArray:
        """What the prompt itself shows, [seed]."""
        mine = (self.data["probe"].values == "plain") & (self.data["who"].values == who)
        return self.data["shown"].isel(trial=int(np.flatnonzero(mine)[0])).drop_vars(_COORDINATES)
