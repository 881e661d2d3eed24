"""Change it: the edits in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...editing.edit import Edit
from ...editing.methods.memit import memit
from ...editing.methods.nullspace import nullspace
from ...editing.methods.quickfix import quickfix
from ...editing.methods.refact import refact
from ...editing.methods.uce import uce
from ...editing.requests import TEMPLATES
from ...models.base import Model
from ...models.errors import NotFoundError
from ...models.suggest import near
from ..wording import Wording

MANY = 10
"""So many texts about other things hold a layer where it is by themselves,"""
RIDGE_SCALE = 0.1
"""and a ridge as strong as without them would hold back the edit itself (docs/edits.md)."""


PLAIN: Mapping[str, Callable[[Model, Mapping[str, str]], Edit]] = {
    "uce": uce,
    "nullspace": nullspace,
    "refact": refact,
    "memit": memit,
}
"""Methods whose layers are settled; the others take theirs from the analyses."""
EDITS = ("quickfix", "locoedit", *PLAIN)


def checked_method(name: str) -> str:
    """Return the name of a method.

    Raises:
        LookupError: if there is none of that name.
    """
    if name not in EDITS:
        raise NotFoundError(f"there is no method {name!r} of editing; {near(name, EDITS)}")
    return name


def edit_worded(
    model: Model,
    wording: Wording,
    site: str | Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
) -> Edit:
    """Edit a word as a wording has it.

    Args:
        model: an opened model.
        wording: what is said and meant, and in which texts.
        site: as ``quickfix`` takes it.
        templates: in place of the wording's own and the general ones.
        keep: in place of the empty text, which guidance's other branch reads, and the wording's other things.
    """
    own = [*wording.efficacy, *wording.templates, *TEMPLATES]
    held = keep is None and len(wording.keep) >= MANY
    return quickfix(
        model,
        {wording.about: wording.change_to},
        site=site,
        templates=list(dict.fromkeys(own)) if templates is None else templates,
        keep=["", *wording.keep] if keep is None else keep,
        ridge_scale=RIDGE_SCALE if held else 1.0,
    )
