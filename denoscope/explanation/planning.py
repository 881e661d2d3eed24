"""What an explanation will take, counted before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch

from ..analysis.attribution.passenger import double_blocks
from ..analysis.information.decomposing import conditions_of
from ..analysis.information.mutual import check_reads
from ..analysis.plans import StudyPlan, every_branch
from ..models.base import Model
from ..models.run.sampling import Sampling
from .explain import chosen
from .looking import GRADIENT_ROWS, LEVELS


def plan_explanation(
    model: Model,
    prompt: str,
    *,
    words: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    levels: int = 16,
    draws: int = 1,
    batch: int = 32,
) -> StudyPlan:
    """Count what ``explain`` takes for a generated picture: the run, the bank, concepts, gradients.

    Args:
        model: as in ``explain``, also one without weights.
        prompt: as there.
        words: as there.
        steps: as there.
        guidance: as there.
        levels: as there.
        draws: as there.
        batch: as there.

    Raises:
        LookupError: as ``explain``.
        ValueError: as ``explain``.
    """
    check_reads(model)
    model.reading_sites()
    found, _ = chosen(model, prompt, words)
    how = Sampling(steps=20 if steps is None else steps, guidance=guidance)
    guided = how.guided(model)
    texts, _ = conditions_of(prompt, found, list(combinations(found, 2)), given_rest=True)
    with torch.no_grad():
        conditions = len({p.digest for p in model.encode(list(texts.values()))})
    run = len(model.branch_names(guided)) * len(model.steps(how))
    keys = 0 if double_blocks(model) else len({w.text for w in found})
    rows = run + 2 * conditions * levels * draws + len(LEVELS) + keys
    gradients = len(found) * len(LEVELS)
    rows += gradients * GRADIENT_ROWS
    exact = every_branch(guided) and model.device.type != "meta"
    single = gradients * GRADIENT_ROWS
    return StudyPlan(
        "explain", 1, 1, rows, exact, None, batch, 0, pictures=1, single=single, backward=gradients
    )
