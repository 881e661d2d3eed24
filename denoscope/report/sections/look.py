"""Look: from noise to picture."""

from __future__ import annotations

import xarray as xr

from ...analysis import plots
from ..results import Results, Section


def section(results: Results) -> Section:
    """The noisy picture and the predicted one, with a slider over the steps."""
    look = results.stages["look"]
    strip = xr.concat([look["noisy"], look["predicted"]], "row").transpose("step", "row", "sample", ...)
    names = ["the noisy picture", "what the network predicts"]
    return Section(figures={"strip": plots.sampling_strip(strip, names)})
