"""Labelled scores of places in a network, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..models.arguments import check_fields, checked
from ..models.drawn import Figure, figure
from ..models.errors import MissingFileError, NotFoundError, UsageError
from ..models.html import frame_table, panel
from ..models.site import Site
from ..models.store.disk import new_folder
from ..models.store.schema import Schema
from ..models.store.sealed import seal, unseal
from ..models.suggest import near
from .intervals import interval

KIND = "dataset"
UNITS = ("prompt", "seed", "draw")
"""Dimensions of repetition: what means and intervals are taken over."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One score for each site (and token, and step window) and each repetition (prompt, seed, noise draw).

    Args:
        values: dims ``site``, any others such as ``token`` or ``window``, and repetitions from ``UNITS``.
        denominator: what the mean is divided by, on repetitions only; None divides by nothing. Always a
            ratio of means: a mean of ratios explodes where one denominator is near zero.
    """

    values: xr.DataArray
    denominator: xr.DataArray | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return f"Scores({dict(self.values.sizes)}; best: {self.best()})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def places(self) -> list[str]:
        """The dimensions that are not repetitions: ``site`` and perhaps ``token`` or ``window``."""
        return [str(d) for d in self.values.dims if d not in UNITS]

    def mean(self) -> xr.DataArray:
        """Mean over the repetitions, as an array over places."""
        mean = self.values.mean(_units(self.values), skipna=False)
        below = self.denominator
        return mean if below is None else mean / below.mean(_units(below), skipna=False)

    @checked
    def interval(self, level: float = 0.95, over: Sequence[str] | None = None) -> xr.Dataset:
        """Return ``mean``, ``low`` and ``high`` over places, as ``denoscope.analysis.intervals`` has them.

        Args:
            level: how often such intervals hold the true mean.
            over: which repetitions are random samples; None is all: prompts, seeds and noise draws. The mean
                is always over all; the others are taken as fixed.

        Raises:
            LookupError: for a dimension that the scores do not have.
        """
        over = _units(self.values) if over is None else list(over)
        fixed = [d for d in _units(self.values) if d not in over]
        below = self.denominator
        below = None if below is None else below.mean([d for d in fixed if d in below.dims], skipna=False)
        values = self.values.mean(fixed, skipna=False)
        return interval(values, over, level, denominator=below)

    @checked
    def top(self, k: int) -> list[Site]:
        """Return the k sites of highest mean score; a site with tokens or windows counts by its best one."""
        mean = self.mean()
        mean = mean.max([d for d in mean.dims if d != "site"])
        order = np.argsort(-mean.values, kind="stable")[:k]
        return [Site(str(mean["site"].values[i])) for i in order]

    def best(self) -> dict[str, Any]:
        """Return the place of highest mean score, by dimension, and that ``mean``."""
        mean = self.mean()
        place = mean.argmax(...)
        found: dict[str, Any] = {str(d): str(mean[d].values[int(i)]) for d, i in place.items()}
        return {**found, "mean": float(mean.isel(place))}

    @checked
    def confirmed(self, k: int = 1, level: float = 0.95, over: str = "seed") -> pd.DataFrame:
        """Return the k best places by one half of the repetitions, with intervals from the other half alone.

        The best of many places is picked for its luck as well, so its own interval lies too high. What the
        second half says of a place that the first half picked is free of that.

        Args:
            k: how many places.
            level: how often such intervals hold the true mean.
            over: the dimension that is halved, in order: "seed", "prompt" or "draw".

        Returns:
            A table of places with ``picked``, their mean in the first half, and ``mean``, ``low`` and
            ``high`` of the second.

        Raises:
            LookupError: for a dimension that the scores do not have.
            ValueError: for fewer than four repetitions, two for each half.
        """
        n = self.values.sizes.get(over, 0)
        if over not in _units(self.values):
            raise NotFoundError(
                f"the scores have no {over!r}; they repeat over {', '.join(_units(self.values))}"
            )
        if n < 4:
            raise UsageError(f"the scores have {n} {over}s; to pick and to confirm takes two each, so 4")
        first, second = (self._part({over: half}) for half in (slice(0, n // 2), slice(n // 2, None)))
        frame = first.to_frame().head(k)[[*self.places, "mean"]].rename(columns={"mean": "picked"})
        return frame.merge(second.to_frame(level), on=self.places, how="left")

    @checked
    def grouped(self, groups: Mapping[str, Sequence[str]], level: float = 0.95) -> pd.DataFrame:
        """Return a table of places for each group of prompts: one study of several attributes.

        Args:
            groups: by name, prompts of the scores: ``{"style": [...], "object": [...]}``.
            level: how often such intervals hold the true mean.

        Returns:
            Columns ``group``, the places, mean, low and high; each group's best first.

        Raises:
            LookupError: for a prompt that the scores do not have, and scores without prompts.
            ValueError: for no groups, and empty ones.
        """
        known = [str(p) for p in self.values["prompt"].values] if "prompt" in self.values.dims else []
        if not groups or not all(groups.values()):
            raise UsageError(f'groups is {dict(groups)}; name prompts: {{"style": ["a flat cat"]}}')
        frames = []
        for name, prompts in groups.items():
            for prompt in prompts:
                if prompt not in known:
                    raise NotFoundError(f"the scores have no prompt {prompt!r}; {near(prompt, known)}")
            part = self._part({"prompt": [known.index(p) for p in prompts]})
            frames.append(part.to_frame(level).assign(group=name))
        frame = pd.concat(frames, ignore_index=True)
        return frame[["group", *frame.columns.drop("group")]]

    def _part(self, some: Mapping[str, slice | list[int]]) -> Scores:
        below = self.denominator
        own = None if below is None else below.isel({d: s for d, s in some.items() if d in below.dims})
        return Scores(self.values.isel(some), own)

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of places with mean, low and high; the best first."""
        frame = self.interval(level).to_dataframe().reset_index()[[*self.places, "mean", "low", "high"]]
        return frame.sort_values("mean", ascending=False, kind="stable", ignore_index=True)

    @checked
    def plot(self, label: str = "score") -> Figure:
        """Return a heat map, ``analysis.plots.effect_map``; full colour is the largest mean.

        Raises:
            ValueError: for scores over more than two dimensions.
        """
        return figure("effect_map", self, label, float(abs(self.mean()).max()) or 1.0)

    @checked
    def save(self, path: str | Path) -> None:
        """Write a zarr store; it appears under its name only when whole.

        Raises:
            FileExistsError: if the path exists.
        """
        data = {"values": self.values}
        if self.denominator is not None:
            data["denominator"] = self.denominator
        save_store(xr.Dataset(data, attrs=self.values.attrs), path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Scores:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is nothing at the path.
            ValueError: if it holds no scores.
        """
        data = load_store(path)
        if "values" not in data or "site" not in data["values"].dims:
            raise UsageError(
                f"{path} holds {sorted(map(str, data))}, not scores; give a store written by Scores.save"
            )
        return cls(
            data["values"].assign_attrs(data.attrs), data.get("denominator", data.get("per"))
        )  # "per": older stores


@checked
def save_store(data: xr.Dataset, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a dataset as a zarr store, whole or not at all; ``xarray.open_zarr`` opens it too.

    Args:
        data: any dataset.
        path: a new folder.
        about: what else to tell of it; JSON.

    Raises:
        FileExistsError: if the path exists.
        StateError: if another process is writing it.
    """
    with new_folder(Path(path)) as part:
        # version 2 of the format: version 3 has no standard for strings yet
        data.to_zarr(part, mode="w", zarr_format=2, consolidated=True)
        seal(part, KIND, about or {})


@checked
def load_store(path: str | Path) -> xr.Dataset:
    """Read a dataset written by ``save_store`` into memory, and compare it with what was written.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if it is not such a store, or is damaged.
    """
    return read_store(Path(path), {str: object})[0]


def load_result(path: str | Path, needed: set[str], kind: str) -> xr.Dataset:
    """Read the dataset of a result, which has to hold some variables and attributes.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if it is no store of that kind of result, or damaged.
    """
    data = load_store(path)
    if missing := needed - set(map(str, data.variables)) - set(data.attrs):
        raise UsageError(f"{path} lacks {sorted(missing)}; give a store written by {kind}.save")
    return data


@checked
def read_store(path: Path, schema: Schema) -> tuple[xr.Dataset, Mapping[str, Any]]:
    """Read a dataset, and what else was told of it, which has to fit a schema.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if it is not such a store, or is damaged.
    """
    if not path.is_dir():
        raise MissingFileError(f"there is no store at {path}")
    home = unseal(path, KIND, schema)
    home.check()
    try:
        with xr.open_zarr(path, consolidated=True) as data:
            whole: xr.Dataset = data.load()
            return whole, home.about
    except (
        Exception
    ) as error:  # zarr and its codecs raise many kinds; each becomes one line that names the input
        raise UsageError(f"could not read {path}: {type(error).__name__}: {error}") from error


def _units(values: xr.DataArray) -> list[str]:
    return [d for d in UNITS if d in values.dims]
