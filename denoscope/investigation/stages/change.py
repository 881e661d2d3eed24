"""Change it: the edit."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.mediation.result import Mediation
from ...editing.edit import Edit
from ...editing.methods.quickfix import quickfix
from ...editing.requests import TEMPLATES
from ...models.base import Model
from ...report.causal_map import CausalMap
from ..case import Setup
from ..wording import Wording

MANY = 10
"""So many texts about other things hold a layer where it is by themselves,"""
RIDGE_SCALE = 0.1
"""and a ridge as strong as without them would hold back the edit itself (docs/edits.md)."""


def make_edit(setup: Setup, cause: Mediation) -> Edit:
    """Edit the text-encoder state whose restoration came nearest to the clean run."""
    return edit_worded(setup.model, setup.wording, CausalMap.of(cause).ranked()["site"][0])


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
