"""Change it: the edit, and what other pictures look like with it."""

from __future__ import annotations

import xarray as xr

from ...analysis.edit_evaluation.prompts import KINDS
from ..pairs import pairs, pictures
from ..plain import plain_part, plain_site
from ..results import Results, Section

READS = "all layers of the {denoiser} that read the text"
MEANT = "read “{about}” as “{change_to}”"
HOW = {
    "uce": f"UCE (Gandikota et al., WACV 2024) solves one ridge regression for {READS}, so that they "
    f"{MEANT}.",
    "nullspace": "A null-space edit (as in SPEED, Li et al. 2025) solves one ridge regression for "
    f"{READS}, so that they {MEANT}, and what it holds to rounding as before.",
    "locoedit": "Of all cross-attentions of the {denoiser}, restoring one came nearest to the clean run. "
    "LocoEdit (Basu et al., ICML 2024) solves one ridge regression for its keys and values alone, so that "
    f"they {MEANT}.",
    "refact": "ReFACT (Arad et al., NAACL 2024) looks for a value under which the {reader} says "
    "“{change_to}” where “{about}” stands, and writes it into one of its MLPs by a change of rank one.",
    "memit": "As in MEMIT (Meng et al., ICLR 2023), values are looked for under which the {reader} says "
    "“{change_to}” where “{about}” stands, and written into its MLPs in closed form.",
}
"""What each method does, in a sentence; of "quickfix" the page tells the place as well."""
UNREAD = {"tokens": "tokens of the text", "pooled": "pooled text"}
"""What an edit of the denoiser may leave as before."""


def section(results: Results) -> Section:
    """Say what was edited; pictures of other wordings and of other things, before and after."""
    edit, data = results.edit, results.stages.get("effect")
    if edit is None or data is None:
        return Section({"edit": None})
    kinds = [kind for kind in KINDS[1:] if kind in data["kind"].values]
    n, method = len(edit.deltas), str(edit.note["method"])
    values = {
        "edit": {
            "method": method,
            "how": HOW[method].format(**_words(results)) if method in HOW else "",
            "site": plain_site(edit.note["site"].split(", ")[0]) if method == "quickfix" else "",
            "found": results.text is not None,
            "reader": results.text.part if results.text else "text encoder",
            "meant": results.instead,
            "address": edit.note.get("site", ""),
            "why": str(results.about.get("why_method", "")),
            "size": f"{edit.size():,}",
            "edited": "one weight matrix was" if n == 1 else f"{n} weight matrices were",
            "weights": "one weight" if n == 1 else f"{n} weights",
        },
        "kept": len({text for text in edit.note.get("keep", []) if text}),
        "unedited": [UNREAD.get(e) or plain_part(e) for e in edit.note.get("unedited", [])],
        "grids": [_grid(data, kind) for kind in kinds],
    }
    return Section(values, {f"grid-{kind}": pairs(data, kind) for kind in kinds})


def _words(results: Results) -> dict[str, str]:
    asked = {"about": str(results.asked["about"]), "change_to": results.instead}
    denoiser = results.denoiser.part if results.denoiser else "denoiser"
    return {**asked, "denoiser": denoiser, "reader": results.text.part if results.text else "text encoder"}


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
