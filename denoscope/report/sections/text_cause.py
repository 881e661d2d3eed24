"""Find the cause: which state of the text encoder carries the word."""

from __future__ import annotations

import json
from typing import Any

from ...analysis import plots
from ..causal_map import CausalMap
from ..findings import tell_encoders, tell_text, tell_total
from ..plain import KINDS, plain_cost
from ..results import Results, Section


def section(results: Results) -> Section:
    """One map for each kind of state: layer x token."""
    found, about = results.text, results.asked["about"]
    if found is None:
        return Section({"reader": None, "text_maps": []})
    data = results.stages["text"]
    figures = _maps(found)
    values = {
        "reader": found.part,
        "text_maps": [{"name": f"text {kind}", "title": KINDS.get(kind, kind)} for kind in figures],
        "text_cost": plain_cost(data),
        "metric": found.metric,
        "proportion": found.proportion and (results.denoiser is None or results.denoiser.proportion),
    }
    told = [
        tell_total(found, about),
        *tell_encoders(json.loads(data.attrs["carried"]), found),
        *tell_text(found, about),
    ]
    return Section(values, {f"text {kind}": figure for kind, figure in figures.items()}, told)


def _maps(found: CausalMap) -> dict[str, Any]:
    """One figure for each kind of state: layer x token."""
    cells = found.cells
    kinds = dict.fromkeys(str(k) for k in cells["kind"].values)
    figures = {}
    for kind in kinds:
        some = cells.isel(site=(cells["kind"] == kind).values)
        some = some.assign_coords(
            site=[str(b).replace(".", " ") for b in some["block"].values],
            token=[str(t).split(":", 1)[-1] for t in some["token"].values],
        )
        figures[kind] = plots.effect_map(some.transpose("site", "token"), *found.scale)
    return figures
