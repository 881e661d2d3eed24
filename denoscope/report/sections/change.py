"""Change it: the edit, and what other pictures look like with it."""

from __future__ import annotations

import xarray as xr

from ...analysis.edit_evaluation.prompts import KINDS
from ..pairs import pairs, pictures
from ..plain import plain_part, plain_site
from ..results import Results, Section


def section(results: Results) -> Section:
    """Say what was edited; pictures of other wordings and of other things, before and after."""
    edit, data = results.edit, results.stages["effect"]
    kinds = [kind for kind in KINDS[1:] if kind in data["kind"].values]
    values = {
        "edit": {
            "site": plain_site(edit.note["site"]),
            "address": edit.note["site"],
            "size": f"{edit.size():,}",
        },
        "kept": len({text for text in edit.note.get("keep", []) if text}),
        "unedited": [plain_part(e) for e in edit.note.get("unedited", [])],
        "grids": [_grid(data, kind) for kind in kinds],
    }
    return Section(values, {f"grid-{kind}": pairs(data, kind) for kind in kinds})


def _grid(data: xr.Dataset, kind: str) -> dict[str, str]:
    picked = pictures(data, kind)
    names = "; ".join(dict.fromkeys(prompt for _, prompt, _ in picked))
    caption = f"From left to right: {names}."
    if kind == "specificity":
        n = int((data["kind"] == kind).sum()) * data.sizes["seed"]
        caption = f"The {len(picked)} of {n} pictures that changed most, the worst on the left: {names}."
    titles = {
        "generality": "Other wordings of the same thing",
        "specificity": "Other things, which should not move: the worst cases",
    }
    return {"name": f"grid-{kind}", "title": titles[kind], "caption": caption}
