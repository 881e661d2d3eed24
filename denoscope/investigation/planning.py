"""What parts of the loop will take, counted before they run; also of full-size models without weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..analysis.mediation.denoiser_tracing import trace_denoiser
from ..analysis.mediation.planning import plan_study
from ..analysis.mediation.text_tracing import trace_text
from ..analysis.plans import StudyPlan, evaluation_plan
from ..models.base import Model
from ..models.errors import UsageError
from ..models.synthetic.sizes import full_size
from .case import Case, Setup, fitting, open_case, prepare
from .single import check_component
from .stages.denoiser_cause import denoiser_call
from .stages.text_cause import text_call
from .wording import Wording, wording


def unweighed(name: str) -> Model:
    """Open a published configuration without weights, in half precision.

    Raises:
        LookupError: for another name.
    """
    model = full_size(name)
    for component in model.components.values():
        torch.nn.Module.to(component, torch.bfloat16)  # diffusers' own warns of parts that compute otherwise
    return model


def plan_locate(case: Case, inside: str | None, size: str | None = None) -> tuple[StudyPlan, Model]:
    """Return what ``locate`` will take, and the model.

    Args:
        case: as in ``locate``.
        inside: as there; of several text encoders one has to be named.
        size: a published configuration in place of the case's model.

    Raises:
        ValueError: for several text encoders: which of them carries most is found by running.
        LookupError: as ``locate``.
    """
    nothing = Wording(case.about, "", (), (), {})
    setup = _without_weights(case, size, nothing) if size else Setup(case, *open_case(case), nothing)
    check_component(setup, inside)
    model, encoders = setup.model, setup.model.text_encoders
    if inside == model.input_site.component:
        return plan_study(trace_denoiser, **denoiser_call(setup)), model
    if inside is None and len(encoders) > 1:
        raise UsageError(
            f"{model.name} has the text encoders {', '.join(encoders)}, and which of them carries most is "
            "found by running; name one: --in"
        )
    return plan_study(trace_text, **text_call(setup, inside or encoders[0])), model


def plan_edit(case: Case, size: str | None = None) -> tuple[StudyPlan, Model]:
    """Return what checking an edit (``evaluate``) will take, and the model; making it runs no denoiser.

    Raises:
        LookupError: as ``evaluate``.
        ValueError: as ``evaluate``.
    """
    if size:
        words = wording(size, case.prompt, case.about, case.change_to)
        setup = _without_weights(case, size, words)
        setup = replace(setup, wording=fitting(setup.model, words))
    else:
        setup = prepare(case)
    prompts = setup.wording.evaluation_prompts()
    return evaluation_plan(setup.model, None, prompts, **setup.run), setup.model


def _without_weights(case: Case, size: str, words: Wording) -> Setup:
    model = unweighed(size)
    if not model.text_encoders:
        raise UsageError(f"{size} has no text encoder, so no word of a prompt can be asked about")
    with torch.no_grad():
        model.encode([case.prompt])[0].find(case.about)
    guidance = model.default_guidance if case.guidance is None else case.guidance
    return Setup(replace(case, model=size, judge=None), model, None, guidance, words)
