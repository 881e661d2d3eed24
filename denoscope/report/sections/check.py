"""Check it: did the edit work, and what else did it move?"""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from ...analysis import plots
from ...analysis.edit_evaluation.evaluate import STATES, EditEvaluation
from ...analysis.plots.results import bars_of
from ...models.judges.choosing import FUNCTION
from ...models.judges.opening import CLASSIFIER
from ..findings import tell_effect, tell_looks, tell_moved
from ..results import Results, Section

GROUPS = {"efficacy": "the edited prompt", "generality": "other wordings", "specificity": "other things"}
STATE_NAMES = {"before": "before", "after": "after", "oracle": "unedited, asked outright"}


def section(results: Results) -> Section:
    """What the judge says; without a judge, how far pixels moved."""
    checked = results.checked
    if checked is None:
        return Section({"checked": False})
    if results.judged:
        figures = {name: plots.effect_bars(_bars(checked, name)) for name in ("shown", "fit")}
    else:
        figures = {"moved": plots.effect_bars(_bars(checked, "moved", ("after",)))}
    candidates = ", ".join(str(c) for c in results.stages["effect"]["candidate"].values)
    moved = checked.to_frame().query("state == 'after'").groupby("kind")["moved"].mean()
    told = [
        *tell_effect(results.shown, results.instead),
        *tell_looks(results.looks),
        tell_moved(moved),
    ]
    values = {"checked": True, "judged": results.judged, "candidates": candidates, **_judge(results.judge)}
    return Section(values, figures, told)


def _judge(about: Mapping[str, str]) -> dict[str, str]:
    """Who judged, and what its number for a picture and a text is."""
    name, kind = about.get("name", ""), about.get("kind", "")
    fit = "CLIP score with the text"
    if kind == FUNCTION:
        fit = "Fit with the text"
    elif kind.endswith(CLASSIFIER):
        fit = "Probability of the label"
    return {"judged_by": f"{name} ({kind})" if kind else name, "fit_name": f"{fit} that should be shown"}


def _bars(checked: EditEvaluation, measure: str, states: tuple[str, ...] = STATES) -> xr.Dataset:
    bars = bars_of(checked, measure).reindex(when=list(states))
    kinds = [GROUPS[str(kind)] for kind in bars["measure"].values]
    names = {"measure": kinds, "when": [STATE_NAMES[s] for s in states]}
    return bars.assign_coords(names)
