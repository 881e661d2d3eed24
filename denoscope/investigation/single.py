"""One part of the loop by itself: find the cause and change nothing, or check an edit that is there."""

from __future__ import annotations

from ..analysis.edit_evaluation.evaluate import EditEvaluation
from ..analysis.mediation.result import Mediation
from ..editing.edit import Edit
from ..models.errors import NotFoundError, UsageError
from ..models.progress import Progress
from .case import Case, Setup, open_case, prepare
from .stages.check import check
from .stages.denoiser_cause import denoiser_cause
from .stages.text_cause import text_cause
from .wording import Wording


def locate(case: Case, inside: str, progress: Progress) -> Mediation:
    """Find the cause alone, in a text encoder or in the denoiser; nothing is changed.

    Args:
        case: prompt, word and settings.
        inside: a component: ``"text_encoder"``, ``"text_encoder_2"``, ``"unet"``, ``"transformer"``.
        progress: called with (done, total, what).

    Raises:
        LookupError: for an unknown model or component, or a word that is not in the prompt.
        ValueError: for runs that cannot be made.
    """
    setup = Setup(case, *open_case(case), Wording(case.about, "", (), (), {}))
    encoders, denoiser = setup.model.text_encoders, setup.model.input_site.component
    if inside not in (*encoders, denoiser):
        raise NotFoundError(f"{case.model} has no {inside!r}; it has {', '.join((*encoders, denoiser))}")
    if inside == denoiser:
        return Mediation(denoiser_cause(setup, progress))
    return Mediation(text_cause(setup, progress, inside))


def evaluate(case: Case, edit: Edit, progress: Progress) -> EditEvaluation:
    """Check an edit alone.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for an edit of other weights, and for runs that cannot be made.
    """
    setup = prepare(case)
    if setup.judge is None:
        raise UsageError(
            f"no judge ships with {case.model!r}, so nobody can say what its pictures show; take 'emoji'"
        )
    with edit.applied(setup.model):
        pass  # is it for these weights?
    return EditEvaluation(check(setup, edit, progress), {})
