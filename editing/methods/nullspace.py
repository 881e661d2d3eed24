"""Edits in the null space of what must stay: a retained set of texts is read exactly as before.

Fang et al.: AlphaEdit, ICLR 2025 (arXiv:2410.02355); Li et al.: SPEED (arXiv:2503.07392). Of the changes D
that leave the outputs of the rows C alone, C Dᵀ = 0, the one of least error::

    D = Rᵀ (λ S⁻¹ + K P Kᵀ)⁻¹ K P,   P = I - C⁺ C,   R = (T - K) W0ᵀ

Exactness holds for rows, not for pictures: the denoiser reads every token of a text, begin and padding too.
So all tokens of a text are held, and few texts leave room for a change (docs/edits.md): for many, ``keep``,
which holds nearly, does better; ``hold`` is for the handful that must not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...models.arguments import checked
from ...models.base import Model
from ..edit import Edit
from ..text_choice import Weights
from ..text_edit import Asked, EditSettings, edit_text, named, replaced

OURS = EditSettings()
SPEED = EditSettings(
    templates=("{}",),
    tokens="subject",
    kept_tokens="subject",
    held_tokens="subject",
    projections="v",
    ridge=1.0,
)
"""SPEED's rows: the last token of each concept and kept text, values alone; without its filter and noise."""
SETTINGS = {"ours": OURS, "speed": SPEED}


@checked
def nullspace(
    model: Model,
    requests: Mapping[str, str],
    *,
    hold: Sequence[str] = ("",),
    keep: Sequence[str] = (),
    weights: Weights = None,
    settings: str | EditSettings = "ours",
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value, and ``hold`` as before.

    The model is not changed. The edit's note tells, for each space of text, how many directions are ``held``,
    ``of`` how many, and which share of the keys' length is ``free``: an edit grows as its inverse.

    Args:
        model: an opened model that reads text.
        requests: what is said -> what is meant, ``""`` to erase it.
        hold: texts that must be read as before, to rounding; those of the settings' tokens.
        keep: texts that must be read as before, nearly.
        weights: which layers, as in ``uce``.
        settings: "ours", "speed", or ``EditSettings`` of your own.

    Raises:
        ValueError: if what is held leaves no room, or holds what is to be edited; and as ``uce``.
        LookupError: as ``uce``.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> edit = nullspace(load(tiny_sd()), {"cat": "dog"}, settings="speed")
    >>> edit.note["spaces"]["tokens"]["held"], edit.note["spaces"]["tokens"]["of"]
    (1, 16)
    """
    how = named(settings, SETTINGS)
    note = {"requests": dict(requests)}
    return edit_text(model, "nullspace", asked(note, how), how, keep=keep, hold=hold, weights=weights, **note)


def asked(note: Mapping[str, Any], settings: EditSettings) -> Asked:
    """Return what an edit's note asks for."""
    return replaced(note["requests"], settings.templates), None
