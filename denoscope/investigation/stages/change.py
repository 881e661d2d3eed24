"""Change it: the edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...analysis.mediation.result import Mediation
from ...editing.edit import Edit
from ...editing.methods.locoedit import locoedit
from ...editing.methods.memit import memit
from ...editing.methods.nullspace import nullspace
from ...editing.methods.quickfix import quickfix
from ...editing.methods.refact import refact
from ...editing.methods.uce import uce
from ...editing.requests import TEMPLATES
from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.suggest import near
from ...report.causal_map import CausalMap
from ..case import Setup
from ..wording import Wording

MANY = 10
"""So many texts about other things hold a layer where it is by themselves,"""
RIDGE_SCALE = 0.1
"""and a ridge as strong as without them would hold back the edit itself (docs/edits.md)."""


def make_edit(setup: Setup, text: Mediation, denoiser: Mediation) -> Edit:
    """Edit by the case's method, at what the analyses found.

    Raises:
        LookupError: for an unknown method.
        ValueError: where the method cannot do what is asked in this model.
    """
    return EDITS[checked_method(setup.method)](setup, text, denoiser)


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


def _quickfix(setup: Setup, text: Mediation, _: Mediation) -> Edit:
    """The text-encoder state whose restoration came nearest to the clean run."""
    return edit_worded(setup.model, setup.wording, CausalMap.of(text).ranked()["site"][0])


def _locoedit(setup: Setup, _: Mediation, denoiser: Mediation) -> Edit:
    """The keys and values of the cross-attention whose restoration came nearest to the clean run."""
    ranked = CausalMap.of(denoiser).ranked()["site"]
    reading = [str(s) for s in ranked if str(s).endswith("cross_attn.out")]
    if not reading:
        raise UsageError(
            f"no cross-attention of {setup.model.name} was restored, so none was found that locoedit could "
            "edit; take --method uce, which edits all layers that read the text"
        )
    return locoedit(setup.model, _asked(setup), weights=reading[0])


def _plain(method: Callable[..., Edit]) -> Callable[[Setup, Mediation, Mediation], Edit]:
    def made(setup: Setup, _: Mediation, __: Mediation) -> Edit:
        return method(setup.model, _asked(setup))

    return made


def _asked(setup: Setup) -> dict[str, str]:
    return {setup.wording.about: setup.wording.change_to}


EDITS: Mapping[str, Callable[[Setup, Mediation, Mediation], Edit]] = {
    "quickfix": _quickfix,
    "uce": _plain(uce),
    "nullspace": _plain(nullspace),
    "locoedit": _locoedit,
    "refact": _plain(refact),
    "memit": _plain(memit),
}
"""What each method edits with what was found; "quickfix" and "locoedit" take their place from it."""
