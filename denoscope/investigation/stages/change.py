"""Change it: the edit."""

from __future__ import annotations

from ...analysis.mediation.result import Mediation
from ...editing.edit import Edit
from ...editing.methods.quickfix import quickfix
from ...editing.requests import TEMPLATES
from ...report.causal_map import CausalMap
from ..case import Setup


def make_edit(setup: Setup, cause: Mediation) -> Edit:
    """Edit the text-encoder state whose restoration came nearest to the clean run."""
    q = setup.case
    site = CausalMap.of(cause).ranked()["site"][0]
    templates = list(dict.fromkeys([*setup.wording.efficacy, *TEMPLATES]))
    request = {q.about: q.change_to}
    keep = ["", *setup.wording.keep]  # the empty text is the other branch of guidance
    return quickfix(setup.model, request, site=site, templates=templates, keep=keep)
