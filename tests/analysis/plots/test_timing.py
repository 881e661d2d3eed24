"""Curves and windows share one axis of steps; what does not fit is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from denoscope.analysis import Scores
from denoscope.analysis.plots import when_and_where
from denoscope.models.errors import UsageError

DIRECTIONS = ["insertion", "removal"]


def curves(steps: int = 8) -> xr.Dataset:
    """Insertion falls, removal rises."""
    falling = np.linspace(1, 0, steps + 1)
    values = np.stack([falling, falling[::-1]])[None]
    dims = ("concept", "direction", "switch")
    coords = {"concept": ["<cook>"], "direction": DIRECTIONS, "switch": range(steps + 1)}
    each = {"mean": values, "low": values - 1, "high": values + 1}
    return xr.Dataset({k: xr.DataArray(v, coords, dims) for k, v in each.items()})


def effects(*windows: str) -> Scores:
    """One effect for each site and window, and seed."""
    values = np.arange(2.0 * len(windows) * 2).reshape(2, len(windows), 2)
    coords = {"site": ["unet/a/b", "unet/a/c"], "window": list(windows), "seed": [0, 1]}
    return Scores(xr.DataArray(values, coords, ("site", "window", "seed")))


def test_curves_stand_above_windows_on_one_axis() -> None:
    figure = when_and_where(curves(), effects("0-1", "2-7"), limit=7)
    *lines, heat = figure.data
    assert [line.name for line in lines] == [f"&lt;cook&gt;, {d}" for d in DIRECTIONS]
    assert list(heat.x) == [0, 2, 8] and list(heat.y) == ["unet/a/b", "unet/a/c"]
    assert np.allclose(heat.z, [[0.5, 2.5], [4.5, 6.5]])
    assert heat.zmax == 7 and "steps 2-7" in heat.hovertext[0][1]
    assert {line.xaxis for line in lines} == {"x"} and heat.xaxis == "x2"
    assert figure.layout.xaxis.matches == "x2" and tuple(figure.layout.xaxis2.range) == (0, 8)
    rows = figure.layout.meta["table"]["rows"]
    assert len(rows) == 2 * 9 + 4 and rows[-1][:4] == ["where", "unet/a/c", "2-7", 6.5]


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        (("0-1", "4-7"), "follow each other"),
        (("1-3", "4-7"), "from step 0"),
        (("0,2,5",), "follow each other"),
        (("0-3", "4-9"), "end at step 10 and the curves at 8"),
    ],
)
def test_windows_that_are_no_axis_are_refused(windows: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        when_and_where(curves(), effects(*windows))


def test_effects_without_windows_are_refused() -> None:
    found = Scores(effects("0-7").values.isel(window=0, drop=True))
    with pytest.raises(UsageError, match="sites by windows"):
        when_and_where(curves(), found)
