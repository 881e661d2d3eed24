"""What the sections of a page are made from, and what each gives to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr

from ..analysis.edit_evaluation.appearance import AT_A_GLANCE
from ..analysis.edit_evaluation.evaluate import STATES, EditEvaluation
from ..analysis.mediation.result import Mediation
from ..editing.edit import Edit
from .causal_map import CausalMap
from .changes import Changes
from .findings import Finding


@dataclass(frozen=True, eq=False)
class Results:
    """All that a run found.

    Args:
        stages: the stages' results by name: look, text, denoiser, changes, effect ...
        whole: what ``run.json`` says.
        edit: the edit that is shown in full, if there is one.
        text: the causal map over the text encoder; None where nobody looked.
        denoiser: the causal map over the denoiser; None where nobody looked.
        checked: what the edit did; None where a goal has no one word to check for.
        changes: what all changes came to; None in runs of older versions.
    """

    stages: Mapping[str, xr.Dataset]
    whole: Mapping[str, Any]
    edit: Edit | None
    text: CausalMap | None
    denoiser: CausalMap | None
    checked: EditEvaluation | None
    changes: Changes | None = None

    @classmethod
    def of(
        cls,
        stages: Mapping[str, xr.Dataset],
        whole: Mapping[str, Any],
        edit: Edit | None,
        changes: Changes | None = None,
    ) -> Results:
        """Average the causal maps of a run."""
        text, denoiser = (
            CausalMap.of(Mediation(stages[name])) if name in stages else None for name in ("text", "denoiser")
        )
        checked = EditEvaluation(stages["effect"], {}) if "effect" in stages else None
        return cls(stages, whole, edit, text, denoiser, checked, changes)

    @property
    def goal(self) -> str:
        """What the changes are for: that a word is read as another, is gone ..., in words."""
        return (
            self.changes.goal_said if self.changes else f"“{self.asked['about']}” is read as “{self.instead}”"
        )

    @property
    def instead(self) -> str:
        """What the word shall be read as; empty where it is to be gone, or nothing else alone."""
        note = {} if self.edit is None else self.edit.note.get("requests", {})
        return str(self.asked.get("change_to") or next(iter(note.values()), ""))

    @property
    def asked(self) -> Mapping[str, Any]:
        """The settings of the run: prompt, about, change_to ..."""
        settings: Mapping[str, Any] = self.whole["settings"]
        return settings

    @property
    def about(self) -> Mapping[str, Any]:
        """The provenance of the run: versions, scheduler, machine ..."""
        provenance: Mapping[str, Any] = self.whole["about"]
        return provenance

    @property
    def judged(self) -> bool:
        """Whether a judge said what the pictures show."""
        return any(bool(self.stages[n].attrs["judged"]) for n in ("effect", "changes") if n in self.stages)

    @property
    def judge(self) -> Mapping[str, str]:
        """Who that was: name, kind, hash of the weights; empty if nobody, or not known."""
        told: Mapping[str, str] = self.about.get("judge", {}) if self.judged else {}
        return told

    @property
    def shown(self) -> dict[str, dict[str, tuple[int, int]]]:
        """For each kind and state: how many pictures fit their target best, of how many; no judge, {}."""
        if not self.judged or self.checked is None:
            return {}
        frame = self.checked.to_frame()
        table = frame.groupby(["kind", "state"])["shown"].agg(["sum", "count"])
        return {
            kind: {
                state: (int(table.loc[(kind, state), "sum"]), int(table.loc[(kind, state), "count"]))
                for state in STATES
            }
            for kind in dict.fromkeys(frame["kind"])
        }

    @property
    def looks(self) -> tuple[int, int, str, float] | None:
        """Of pictures of other things: how many look as before, of how many; the most changed, and how far.

        None where there are none, or the run is of a version that did not look.
        """
        frame = pd.DataFrame() if self.checked is None else self.checked.to_frame()
        if "colour" not in frame:
            return None
        others = frame[(frame["kind"] == "specificity") & (frame["state"] == "after")]
        if others.empty:
            return None
        worst = others.loc[others["colour"].idxmax()]
        same = int((others["colour"] <= AT_A_GLANCE).sum())
        return same, len(others), str(worst["prompt"]), float(worst["colour"])


@dataclass(frozen=True, eq=False)
class Section:
    """What one section gives to the page.

    Args:
        values: what the template reads as ``page.name``.
        figures: plotly figures by the name that the template puts in ``data-figure``.
        findings: its sentences under "What was found".
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
