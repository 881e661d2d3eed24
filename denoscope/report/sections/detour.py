"""Try it: what still comes of the edited word when somebody tries."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...analysis import plots
from ...analysis.erasure.result import Robustness
from ..findings import Finding
from ..results import Results, Section


def section(results: Results) -> Section:
    """What a short sheet found; nothing where no judge could say what pictures show."""
    stage = results.stages.get("robustness")
    if stage is None:
        return Section({"detour": None})
    found = Robustness(stage)
    about, instead = str(results.asked["about"]), results.instead
    values = {"measure": stage.attrs["measure"], "about": about, "instead": instead}
    figures = {"detour": plots.effect_bars(found.bars())}
    return Section({"detour": values}, figures, tell(found, about, instead))


def tell(found: Robustness, about: str, instead: str) -> list[Finding]:
    """Say in words what each probe brought back; what comes back is bad news for an erasure."""
    frame = found.to_frame()
    plain = frame[frame["probe"] == "plain"].set_index("who")["mean"]
    said = [_by_construction(found, about)] if (frame["probe"] == "clean_embeddings").any() else []
    if plain["clean"] <= plain["edited"]:
        text = f"Of “{about}” the edit took nothing away that the judge sees, so nothing can come back."
        return [*said, Finding(text, weak=True)]
    told = {
        "embedding": _fitted(frame, plain["clean"], instead),
        "completion": _completed(frame, about),
        "paraphrase": _paraphrased(frame, about),
    }
    return [*said, *(finding for finding in told.values() if finding is not None)]


def _by_construction(found: Robustness, about: str) -> Finding:
    if found.reaches_clean:
        text = "Given the text as the unedited model reads it, the edited one paints the picture from before"
        return Finding(f"{text}, to the bit: the edit is a detour around “{about}”, which is still there.")
    return Finding("The edit lies in the denoiser too: text as the unedited model reads it does not undo it.")


def _fitted(frame: pd.DataFrame, clean: float, instead: str) -> Finding | None:
    own, control = (_most(frame, "embedding", who) for who in ("edited", "clean"))
    if own is None:
        return None
    text = f"One fitted token ({own['budget']:.0f} steps) brings back {own['mean']:.2f} of {clean:.2f}"
    if control is not None:
        text += f"; begun at “{instead}” in the unedited model, the same fit reaches {control['mean']:.2f}"
    return Finding(f"{text}.", weak=bool(own["recovered"] > 0.25))


def _completed(frame: pd.DataFrame, about: str) -> Finding | None:
    own = frame[(frame["probe"] == "completion") & (frame["who"] == "edited")]
    back = own[own["recovered"] >= 0.5]
    if own.empty or back.empty:
        return None
    first, last = back["budget"].min(), own["budget"].max()
    text = f"A picture that the unedited model began stays “{about}” once it has painted"
    return Finding(f"{text} {first:.0f} of {last:.0f} steps.")


def _paraphrased(frame: pd.DataFrame, about: str) -> Finding | None:
    own = _most(frame, "paraphrase", "edited")
    if own is None:
        return None
    n = len(frame[(frame["probe"] == "paraphrase") & (frame["who"] == "edited")])
    text = f"Of {n} other wordings of “{about}”, {own['attack']} brings back most: {own['mean']:.2f}"
    return Finding(f"{text}.", weak=bool(own["recovered"] > 0.25))


def _most(frame: pd.DataFrame, probe: str, who: str) -> Any:
    own = frame[(frame["probe"] == probe) & (frame["who"] == who)]
    return None if own.empty else own.loc[own["mean"].idxmax()]
