"""Find the cause: where in the denoiser, and when."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from ...analysis import plots
from ...models.site import Site
from ..causal_map import CausalMap
from ..findings import tell_denoiser
from ..plain import KINDS, plain_cost, plain_kind, plain_window
from ..results import Results, Section


def section(results: Results) -> Section:
    """One map for each window of steps: block x kind of layer."""
    if results.denoiser is None:
        return Section({"denoiser": None, "denoiser_maps": []})
    figures = _maps(results.denoiser)
    values = {
        "denoiser": results.denoiser.part,
        "denoiser_maps": [{"name": f"denoiser {window}", "title": window} for window in figures],
        "denoiser_cost": plain_cost(results.stages["denoiser"]),
    }
    shown = {f"denoiser {window}": figure for window, figure in figures.items()}
    return Section(values, shown, tell_denoiser(results.denoiser))


def _maps(found: CausalMap) -> dict[str, Any]:
    """One figure for each step window: block x kind of layer."""
    places = [_place(str(b)) for b in found.cells["block"].values]
    kinds = [plain_kind(Site(str(s))) for s in found.cells["site"].values]
    cells = found.cells.drop_vars(["block", "kind"])
    name = xr.DataArray(cells["site"].values, dims="site", coords={"site": cells["site"]})
    index = pd.MultiIndex.from_arrays([places, kinds], names=["place", "part"])
    cells = cells.assign(name=name).drop_vars("site")
    cells = cells.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "site")).unstack("site")
    order = {"place": list(dict.fromkeys(places))[::-1], "part": list(dict.fromkeys(kinds))}
    known = list(KINDS.values())
    order["part"].sort(key=lambda part: next((i for i, k in enumerate(known) if part.startswith(k)), 99))
    cells = cells.sel(order)
    return {
        plain_window(str(w)): plots.effect_map(
            cells.sel(window=w).drop_vars("window").transpose(*order), *found.scale
        )
        for w in cells["window"].values
    }


def _place(block: str) -> str:
    """Name a residual block and the attention after it alike: both are "up.1 · 0"."""
    stage, _, rest = block.partition(".res.")
    if not rest:
        stage, _, rest = block.partition(".attn.")
        rest = rest.removesuffix(".0") if rest.count(".") else rest
    return f"{stage} · {rest}" if rest else block
