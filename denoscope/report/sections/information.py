"""What each word tells of the picture, and which words tell the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ...analysis import plots
from ..findings import Finding
from ..results import Results, Section

SURE = 2.0
"""So many standard errors from 0 count."""


def section(results: Results) -> Section:
    """Bars of what words tell given all others, and the redundancy of each pair."""
    told = results.stages.get("information")
    if told is None or "pair_nats" not in told:
        why = "" if told is None else str(told.attrs.get("skipped", ""))
        return Section({"information": None, "no_information": why})
    values = {"pairs": [_pair(told, i) for i in range(told.sizes["pair"])], "pictures": told.sizes["image"]}
    figures = {"information": plots.effect_bars(_bars(told))} if "nats" in told else {}
    values["bars"] = bool(figures)
    return Section({"information": values, "no_information": ""}, figures, _told(told))


def _pair(told: xr.Dataset, i: int) -> list[str]:
    own = told.isel(pair=i)
    parts = {
        p: _mean(own["pair_nats"].sel(part=p), own["pair_stderr"].sel(part=p))
        for p in ("redundancy", "synergy")
    }
    return [str(told["pair"].values[i]), *(f"{mean:.0f} ± {error:.0f}" for mean, error in parts.values())]


def _mean(nats: xr.DataArray, stderr: xr.DataArray) -> tuple[float, float]:
    """The mean over pictures, with the larger one of the errors of noise and of pictures."""
    n = nats.size
    noise = float((stderr**2).mean()) ** 0.5
    spread = float(nats.std(ddof=1)) if n > 1 else 0.0
    return float(nats.mean()), max(noise, spread) / n**0.5


def _bars(told: xr.Dataset) -> xr.Dataset:
    words = [str(w) for w in told["word"].values]
    found = [_mean(told["nats"].sel(word=w), told["stderr"].sel(word=w)) for w in told["word"].values]
    mean, error = (np.array(x)[:, None] for x in zip(*found, strict=True))
    dims = ("measure", "when")
    data: dict[str, Any] = {"mean": (dims, mean), "low": (dims, mean - SURE * error),
                            "high": (dims, mean + SURE * error)}  # fmt: skip
    return xr.Dataset(data, {"measure": words, "when": ["nats, given all other words"]})


def _told(told: xr.Dataset) -> list[Finding]:
    if "nats" not in told:
        return []
    found = {str(w): _mean(told["nats"].sel(word=w), told["stderr"].sel(word=w)) for w in told["word"].values}
    most = max(found, key=lambda w: found[w][0])
    mean, error = found[most]
    text = (
        f"Of the words, “{most}” tells most of the picture given all others: {mean:.0f} ± {error:.0f} nats."
    )
    return [Finding(text, weak=mean <= SURE * error)]
