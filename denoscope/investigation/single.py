"""One part of the loop by itself: find the cause and change nothing, or check an edit that is there."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.edit_evaluation.evaluate import EditEvaluation
from ..analysis.erasure.result import Robustness
from ..analysis.mediation.result import Mediation
from ..editing.edit import Edit
from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.progress import Progress
from ..models.text.prompt import occurrence
from .case import Case, ReadingJudge, Setup, fitting, open_case, prepare
from .stages.attack import attack
from .stages.change import edit_worded
from .stages.check import check
from .stages.denoiser_cause import denoiser_cause
from .stages.text_cause import text_cause
from .wording import Wording, same, wording


def locate(case: Case, inside: str | None, progress: Progress) -> Mediation:
    """Find the cause alone, in a text encoder or in the denoiser; nothing is changed.

    Args:
        case: prompt, word and settings.
        inside: a component: ``"text_encoder"``, ``"text_encoder_2"``, ``"unet"``, ``"transformer"``;
            None is the text encoder that carries most.
        progress: called with (done, total, what).

    Raises:
        LookupError: for an unknown model or component, a word that is not in the prompt, or a prompt that the
            judge has no label for.
        ValueError: for runs that cannot be made.
    """
    setup = _looking(case, inside)
    if inside == setup.model.input_site.component:
        return Mediation(denoiser_cause(setup, progress))
    return Mediation(text_cause(setup, progress, inside))


def _looking(case: Case, inside: str | None) -> Setup:
    setup = Setup(case, *open_case(case), Wording(case.about, "", (), (), {}))
    if isinstance(setup.judge, ReadingJudge):
        setup.judge.check([case.prompt])
    check_component(setup, inside)
    return setup


def check_component(setup: Setup, inside: str | None) -> None:
    """Raise LookupError if a cause is looked for where the model has nothing."""
    encoders, denoiser = setup.model.text_encoders, setup.model.input_site.component
    if inside not in (None, *encoders, denoiser):
        raise NotFoundError(
            f"{setup.model.name} has no {inside!r}; it has {', '.join((*encoders, denoiser))}"
        )


def edit(
    model: Model,
    name: str,
    about: str,
    change_to: str,
    prompt: str | None = None,
    *,
    site: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Edit:
    """Make the edit alone, as an investigation makes it.

    Args:
        model: an opened model.
        name: what it is called, which says what its world is.
        about: the word to edit.
        change_to: what it shall mean.
        prompt: the text in whose wording it is edited first of all; None is the word alone.
        site: the layer, or one of each text encoder; None is the first self-attention of all.
        templates: wordings with ``{}``; None is the prompt's own and four general ones.
        keep: texts that must be read as before; None is the empty one, and other things in the prompt's
            wording.

    Raises:
        LookupError: for words that no tokenizer knows, and for sites that there are not.
        ValueError: for words that cannot be edited, or are not in the prompt exactly once.
    """
    for side in (about, change_to):
        if not side.strip():
            raise UsageError(f"the request {(about, change_to)!r} has an empty side; give a word")
    words = fitting(model, wording(name, about if prompt is None else prompt, about, change_to))
    return edit_worded(model, words, list(site) if site else None, templates, keep)


def asked_of(edit: Edit, about: str | None, change_to: str | None) -> tuple[str, str]:
    """Return what an edit is evaluated on: what was asked for, or its own request.

    Raises:
        ValueError: if the edit says that it is about something else, or does not say what it is about.
    """
    parts = edit.note.get("parts", [edit.note])
    own: list[tuple[str, str]] = [request for part in parts for request in part.get("requests", {}).items()]
    if about is None and change_to is None:
        if len(own) != 1:
            known = "; ".join(f"{a} -> {b}" for a, b in own) or "it does not say"
            raise UsageError(f"what is the edit about ({known})? name --about and --change-to")
        return own[0]
    fits = [
        (a, b)
        for a, b in own
        if (about is None or same(occurrence(about)[0]) == same(a))
        and (change_to is None or same(change_to) == same(b))
    ]
    if own and not fits:
        known = "; ".join(f"{a} -> {b}" for a, b in own)
        asked = f"{about or '...'} -> {change_to or '...'}"
        raise UsageError(
            f"the edit is about {known}, not about {asked}; leave out --about and --change-to, or make one "
            f"with  denoscope edit"
        )
    first = fits[0] if fits else ("", "")
    return about or first[0], change_to or first[1]


def evaluate(case: Case, edit: Edit, progress: Progress) -> EditEvaluation:
    """Check an edit alone.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for an edit of other weights, and for runs that cannot be made.
    """
    setup = _judged(case, edit)
    return EditEvaluation(check(setup, edit, progress), {})


def robustness(
    case: Case, edit: Edit, progress: Progress, *, probes: Sequence[str] | None = None, quick: bool = False
) -> Robustness:
    """Try an edit alone.

    Args:
        case: prompt, words and settings.
        edit: what was made.
        progress: called with (done, total, what).
        probes: which; None is all, or with ``quick`` the cheap ones.
        quick: with a small budget.

    Raises:
        LookupError: for an unknown model or probe, or a word that is not in the prompt.
        ValueError: for an edit of other weights, and for runs that cannot be made.
    """
    return Robustness(attack(_judged(case, edit), edit, progress, probes=probes, quick=quick))


def _judged(case: Case, edit: Edit) -> Setup:
    """A case made ready, with somebody to judge, and an edit that fits its model."""
    setup = prepare(case)
    if setup.judge is None:
        raise UsageError(
            f"no judge ships with {case.model!r}, so nobody can say what its pictures show; give a CLIP, a "
            "SigLIP or an image classifier: --judge FOLDER_OR_ID, judge=..."
        )
    with edit.applied(setup.model):
        pass  # is it for these weights?
    return setup
