"""What figures take: results as they are, or the plain labelled arrays that these hold."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from ...models.errors import UsageError, WrongTypeError
from ...models.images import to_array
from ...models.site import Site


class Scored(Protocol):
    """Scores, or what has an interval for each place as they do."""

    def interval(self) -> xr.Dataset:
        """Return mean, low and high over places."""
        ...


class Normalised(Protocol):
    """A Mediation, or what has shares of an effect as it does."""

    @property
    def normalised(self) -> Scored:
        """Shares of the total effect."""
        ...


class Painted(Protocol):
    """A Trace, WordMaps, or what else has pictures [sample, channel, height, width] in 0..1."""

    @property
    def images(self) -> Tensor:
        """The pictures."""
        ...


Effects: TypeAlias = xr.Dataset | Scored | Normalised
Pictures: TypeAlias = xr.DataArray | Painted | Tensor


def effects_of(result: Effects) -> xr.Dataset:
    """Return ``mean``, ``low`` and ``high`` over two dimensions; sites alone become blocks by kinds.

    Raises:
        TypeError: for what holds no effects.
        ValueError: if there are more dimensions than two.
    """
    found: Any = result
    for name in ("normalised", "interval"):  # asked of the class: reading a property computes it
        if hasattr(type(found), name):
            found = getattr(found, name)
    found = found() if callable(found) else found
    if not isinstance(found, xr.Dataset) or not {"mean", "low", "high"} <= set(found):
        raise WrongTypeError(
            f"a {type(result).__name__} holds no effects; give Scores, a Mediation, or a dataset with "
            "mean, low and high"
        )
    if found["mean"].dims == ("site",):
        return _blocks_by_kind(found)
    if found["mean"].ndim != 2:
        raise UsageError(
            f"an effect map has two dimensions, got {found['mean'].dims}; average over the others first"
        )
    first = "site" if "site" in found.dims else str(found["mean"].dims[0])
    return found.transpose(first, ...)


def _blocks_by_kind(effects: xr.Dataset) -> xr.Dataset:
    sites = [Site(str(s)) for s in effects["site"].values]
    blocks = list(dict.fromkeys(f"{s.component}/{s.block}" for s in sites))
    kinds = list(dict.fromkeys(_kind(s) for s in sites))
    table = xr.Dataset(
        {k: (("block", "kind"), np.full((len(blocks), len(kinds)), np.nan)) for k in ("mean", "low", "high")},
        {"block": blocks, "kind": kinds},
    )
    for i, site in enumerate(sites):
        at = {"block": f"{site.component}/{site.block}", "kind": _kind(site)}
        for name in table:
            table[name].loc[at] = float(effects[name].values[i])
    return table


def _kind(site: Site) -> str:
    return f"{site.kind}@{site.stream}" if site.stream else site.kind


def pictures_of(result: Pictures) -> xr.DataArray:
    """Return pictures as uint8 [sample, y, x, channel].

    Raises:
        TypeError: for what has no pictures.
    """
    found: Any = result
    found = found.images if hasattr(type(found), "images") else found
    if isinstance(found, Tensor):
        return to_array(found)
    if isinstance(found, xr.DataArray):
        return found if found.ndim == 4 else found.expand_dims("sample")
    raise WrongTypeError(
        f"a {type(result).__name__} has no pictures; give a Trace, WordMaps, or pictures "
        "[sample, 3, height, width] in 0..1"
    )


def captions_of(result: Any) -> list[str]:
    """What each sample of a run is: its prompt and seed; empty for what does not know."""
    run = getattr(result, "run", result)
    prompts, seeds = getattr(run, "prompts", ()), getattr(run, "seeds", ())
    return [f"{p.text}, seed {s}" if p.text else f"seed {s}" for p, s in zip(prompts, seeds, strict=True)]


def bars_of(evaluation: Any, measure: str) -> xr.Dataset:
    """One measure of an EditEvaluation: ``mean``, ``low``, ``high`` over (measure, when).

    Here measure is the kind of prompt, and when the state: before, after, oracle.

    Raises:
        ValueError: for a measure that it does not have.
    """
    frame: pd.DataFrame = evaluation.summary()
    if measure not in set(frame["measure"]):
        raise UsageError(f"measure is {measure!r}; there are {', '.join(dict.fromkeys(frame['measure']))}")
    frame = frame[frame["measure"] == measure]
    kinds, states = (list(dict.fromkeys(frame[c])) for c in ("kind", "state"))
    table = frame.set_index(["kind", "state"])[["mean", "low", "high"]].rename_axis(["measure", "when"])
    found: xr.Dataset = table.to_xarray()
    return found.sel(measure=kinds, when=states)
