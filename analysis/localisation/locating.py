"""Which places carry a word? One call for several methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import NotFoundError
from ...models.suggest import near
from ..mediation.denoiser_tracing import trace_denoiser
from ..mediation.runs import each_subject
from ..mediation.text_tracing import trace_text
from ..scores import Scores
from .ablating_heads import head_ablation
from .layer_prompts import locogen
from .patching_gradients import attribution_patching
from .reading_heads import head_relevance

Subject = str | Sequence[str]


@checked
def locate(
    model: Model, prompts: Sequence[str], subject: Subject, *, method: str = "mediation", **settings: Any
) -> Scores:
    """Return for each place what it has to do with the subject, by one of several methods.

    What each answers and costs: docs/localisation.md.

    Args:
        model: an opened model with a text encoder.
        prompts: texts.
        subject: the words in question, or one for each prompt.
        method: ``"mediation"`` restores sites of the denoiser (``trace_denoiser``), ``"text"`` states of
            a text encoder (``trace_text``), ``"locogen"`` lets layers read the prompt without the subject
            (``locogen``; ``others`` are other prompts to read). ``"attribution_patching"`` gives approximate
            effects, in units of the metric; ``"head_ablation"`` what is lost without each head, in those
            units, with its mean over the prompts without the subject (or ``others``) in its place;
            ``"head_relevance"`` how much each head looks for the subject rather than for ``others``.
        **settings: of that function: seeds, metric, steps, ...

    Raises:
        LookupError: for an unknown method, and a subject that is not in its prompt.
        ValueError, TypeError: what the method refuses.
    """
    if method not in METHODS:
        raise NotFoundError(f"there is no method {method!r} of locating; {near(method, METHODS)}")
    return METHODS[method](model, prompts, subject, **settings)


def _mediation(model: Model, prompts: Sequence[str], subject: Subject, **settings: Any) -> Scores:
    return trace_denoiser(model, prompts, subject, **settings).normalised


def _text(model: Model, prompts: Sequence[str], subject: Subject, **settings: Any) -> Scores:
    return trace_text(model, prompts, subject, **settings).normalised


def _locogen(model: Model, prompts: Sequence[str], subject: Subject, **settings: Any) -> Scores:
    return locogen(model, prompts, **_without(model, prompts, subject, settings))


def _head_ablation(model: Model, prompts: Sequence[str], subject: Subject, **settings: Any) -> Scores:
    return head_ablation(model, prompts, **_without(model, prompts, subject, settings))


def _without(
    model: Model, prompts: Sequence[str], subject: Subject, settings: dict[str, Any]
) -> dict[str, Any]:
    """Settings whose other prompts, if none are given, are those without the subject."""
    if "others" in settings:
        return settings
    subjects = each_subject(prompts, subject)
    with torch.no_grad():
        read = model.encode(list(prompts))
    return {**settings, "others": [p.without(s) for p, s in zip(read, subjects, strict=True)]}


METHODS: Mapping[str, Callable[..., Scores]] = {
    "mediation": _mediation,
    "text": _text,
    "locogen": _locogen,
    "attribution_patching": attribution_patching,
    "head_ablation": _head_ablation,
    "head_relevance": head_relevance,
}
