"""What an investigation will take, stage by stage, counted before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.mediation.denoiser_tracing import trace_denoiser
from ..analysis.mediation.planning import plan_study, rows_per_second
from ..analysis.mediation.text_tracing import trace_text
from ..models.errors import DenoscopeError
from .case import Setup
from .changes.brush import prompts_of
from .changes.by_mediation import READ
from .changes.ground import WORDINGS
from .changes.insisting import BINS
from .stages.attack import attack_rows
from .stages.denoiser_cause import denoiser_call
from .stages.information import LEVELS, PICTURES, words_of
from .stages.oracle import PICTURES as ASKED
from .stages.text_cause import text_call

OFFERED = {"mediation": 2, "information": 1, "features": 2, "directions": 3}
"""Changes that an analysis offers, at most; one more is made without any."""
BESIDE = 3
"""What is painted beside them: nothing done, asked outright, and the change for which nobody looked."""
DRAWS = 2
"""Of noise at each level of the information: a pair of opposite ones."""


@dataclass(frozen=True)
class Expected:
    """What is expected of an investigation.

    Args:
        rows: rows of the denoiser by stage, at most.
        pace: rows a second, measured on a few steps.
    """

    rows: Mapping[str, int]
    pace: float

    @property
    def seconds(self) -> float:
        """How long it takes at most, as long as nobody else uses the machine."""
        return sum(self.rows.values()) / self.pace


def expected(setup: Setup) -> Expected:
    """Count what an investigation will take, and measure how fast this machine is.

    Raises:
        ValueError: for runs that cannot be made.
    """
    case, model, n = setup.case, setup.model, len(setup.seeds)
    analyses = case.looked_by
    passes = 2 if setup.guidance > 1 else 1

    def runs(count: int) -> int:
        return count * len(model.steps(case.steps)) * passes

    rows = {"asking outright": runs(len(setup.goal.asked) * min(ASKED, n)), "looking": runs(n)}
    if "mediation" in analyses:
        for encoder in model.text_encoders:
            name = f"cause: {encoder}"
            rows[name] = plan_study(trace_text, **text_call(setup, encoder)).rows
        rows[f"cause: {model.input_site.component}"] = plan_study(trace_denoiser, **denoiser_call(setup)).rows
    if "information" in analyses:
        rows["what words tell"] = runs(PICTURES) + _bank(setup)
    found = 0
    if "features" in analyses:
        rows["features"] = runs(2 * WORDINGS * n)
    if "directions" in analyses:
        found = runs(2 * WORDINGS * n * READ)
    n_changes = sum(OFFERED[a] for a in analyses) + BESIDE
    rows["trying the changes"] = found + runs(n_changes * len(prompts_of(setup)) * n) + n_changes * BINS * n
    if setup.judge is not None and setup.goal.kind in {"change_to", "steer"}:
        rows["trying to get it back"] = attack_rows(setup)
    pace = rows_per_second(model, samples=min(4, n), guidance=setup.guidance, prompt=case.prompt, steps=2)
    return Expected(rows, pace)


def _bank(setup: Setup) -> int:
    """Rows of the information of words and pairs; none where it cannot be said."""
    try:
        words = 2 if setup.goal.kind == "balance" else len(words_of(setup, setup.case.prompt))
    except DenoscopeError:
        return 0
    prompts = 2 if setup.goal.kind == "balance" else 1
    conditions = 1 + words + words * (words - 1) // 2
    return prompts * conditions * LEVELS * DRAWS * PICTURES
