"""UCE: erase, replace and debias concepts in the layers of the denoiser that read the text, in closed form.

Gandikota, Orgad, Belinkov, Materzyńska, Bau: Unified Concept Editing in Diffusion Models, WACV 2024
(arXiv:2308.14761), eq. 7. Concepts c_i get outputs v_i, others c_j are kept, with one solve for all::

    min_W  Σ_i ‖W c_i - v_i‖² + Σ_j ‖W c_j - W0 c_j‖² + λ ‖W - W0‖²

Replaced, v_i = W0 c' with c' what it is to mean; erased, c' is what stands where the word is left out;
debiased, v_i = W0 (c_i + Σ_j α_j a_j) with attributes a_j; ``balance`` finds α in turns of
painting and counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ..edit import Edit
from ..requests import prompt_pairs
from ..text_choice import Weights
from ..text_edit import Asked, EditSettings, Wish, edit_text, named, replaced

OURS = EditSettings()
CODE = EditSettings(templates=("{}",), tokens="subject", kept_tokens="subject", ridge=0.5, empty="begin")
"""The authors' code: one row for a concept, its last token; an erased word is read as the begin token."""
SETTINGS = {"ours": OURS, "code": CODE}

Amounts = Mapping[str, Mapping[str, float]]


@checked
def uce(
    model: Model,
    requests: Mapping[str, str],
    *,
    debias: Amounts | None = None,
    keep: Sequence[str] = ("",),
    hold: Sequence[str] = (),
    weights: Weights = None,
    settings: str | EditSettings = "ours",
) -> Edit:
    """Return an Edit after which the denoiser reads each key of ``requests`` as its value.

    The model is not changed. All requests are solved together, so their order does not matter. A word is
    changed in one surrounding alone by templates of it, with the others kept: ``settings=replace(OURS,
    templates=("a cat with a {}",), kept_tokens="all")``, ``keep=["", "a hat", "a dog with a hat"]``.

    Args:
        model: an opened model that reads text.
        requests: what is said -> what is meant, ``""`` to erase it; ``{}`` beside ``debias``.
        debias: concept -> attribute -> α, how much of the attribute's output is added; negative takes away.
        keep: texts that must be read as before; they hold the layers where they are. The empty text is what
            guidance's other branch reads.
        hold: texts whose tokens must be read as before exactly, as ``nullspace`` has it.
        weights: which layers: sites or patterns of them (what an analysis found), or patterns of weights'
            names; None is all that read the text, keys and values, and the pooled vector's first layer. The
            edit's note names what is left ``unedited``.
        settings: "ours", "code" (the authors' code), or ``EditSettings`` of your own.

    Raises:
        ValueError: for no requests, contradictory ones, texts that are too long, and as ``ridge.solve``.
        LookupError: for words that a tokenizer loses, layers that there are not, and unknown settings.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> uce(load(tiny_sd()), {"cat": "dog", "red": ""}, debias={"mat": {"hat": 0.2}})
    Edit(uce: cat -> dog, red -> ; 2,048 numbers in 8 weights; for 'StableDiffusionPipeline')
    """
    how, debias = named(settings, SETTINGS), debias or {}
    if not requests and not debias:
        raise UsageError('requests is {}; write what is said and what is meant: {"firefighter": "cook"}')
    note = {"requests": dict(requests), "debias": {said: dict(a) for said, a in debias.items()}}
    return edit_text(model, "uce", asked(note, how), how, keep=keep, hold=hold, weights=weights, **note)


def asked(note: Mapping[str, Any], settings: EditSettings) -> Asked:
    """Return what an edit's note asks for."""
    templates = settings.templates
    return [*replaced(note["requests"], templates), *debiased(note["debias"], templates)], None


def debiased(debias: Amounts, templates: Sequence[str]) -> list[Wish]:
    """Return the wishes to add some of each attribute to a concept, wording by wording.

    Raises:
        ValueError: for a concept without attributes, and amounts that are not finite.
    """
    wishes = []
    for said, amounts in debias.items():
        if not amounts or not all(abs(a) < float("inf") for a in amounts.values()):
            raise UsageError(
                f"debias asks {said!r} for {dict(amounts)!r}; give attributes with how much of each is "
                'added: {"doctor": {"woman": 0.1}}'
            )
        pairs = [prompt_pairs({said: attribute}, templates) for attribute in amounts]
        wishes += [Wish(each, tuple(amounts.values()), own=1.0) for each in zip(*pairs, strict=True)]
    return wishes
