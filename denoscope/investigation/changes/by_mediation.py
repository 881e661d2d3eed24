"""Causal mediation says where a word acts; closed-form edits change that place."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.mediation.result import Mediation
from ...editing.edit import Edit
from ...editing.methods.balancing import balance
from ...editing.methods.locoedit import locoedit
from ...editing.methods.uce import uce
from ...models.errors import UsageError
from ...models.site import Site
from ...report.causal_map import CausalMap
from ...report.plain import plain_site
from ..stages.change import PLAIN, edit_worded
from .change import Change
from .ground import ROUNDS, Ground, Offers

BY = "mediation"
READ = 3
"""So many attentions to the text are edited, or steered, together."""
NOBODY = "no analysis"
"""Who offers an edit for which nothing was looked for."""


def offer(ground: Ground, text: Mediation | None, denoiser: Mediation | None, offers: Offers) -> None:
    """Add the edits at the places that were found, and the one by the case's method."""
    if text is not None and ground.goal.kind != "balance":
        offers.attempt(BY, "an edit of the text encoder", lambda: in_text(ground, text))
    if denoiser is not None:
        offers.attempt(BY, "an edit of what reads the text", lambda: in_denoiser(ground, denoiser))


def by_method(ground: Ground, offers: Offers) -> None:
    """Add the edit by the case's method where nothing was looked for: in all layers, or the usual one."""
    offers.attempt(NOBODY, ground.setup.method, lambda: unlocated(ground))


def unlocated(ground: Ground) -> Change:
    """Edit without having looked: what a place that was found has to be better than."""
    goal, method, nowhere = ground.goal, ground.setup.method, "Nothing was looked for."
    if goal.kind == "balance":
        edit, told, rows = evenly(ground, None)
        return Change("debiasing of all layers", NOBODY, f"{nowhere} {told}", edit, rows)
    why = f"{nowhere} {_sentence(ground.setup.why_method)}".strip()
    if method == "quickfix":
        edit = edit_worded(ground.model, ground.setup.wording)
        return Change("quickfix of the usual layer", NOBODY, why, edit)
    if method == "locoedit":
        edit = uce(ground.model, ground.request, keep=ground.kept)
        return Change("uce of all layers", NOBODY, why, edit)
    return Change(f"{method} of all its layers", NOBODY, why, PLAIN[method](ground.model, ground.request))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def in_text(ground: Ground, text: Mediation, site: str | None = None) -> Change:
    """Edit the text-encoder state whose restoration came nearest to the clean run, or another."""
    causes = CausalMap.of(text)
    best = causes.ranked().iloc[0]
    place = str(best["site"]) if site is None else site
    edit = edit_worded(ground.model, ground.setup.wording, place)
    share = f", restores {causes.say(best)} of the effect" if causes.proportion else ""
    why = f"Of all text states {plain_site(best['site'])} comes nearest to the clean run{share}."
    return Change(f"quickfix of {plain_site(place)}", BY, why, edit)


def in_denoiser(ground: Ground, denoiser: Mediation, sites: Sequence[str] | None = None) -> Change:
    """Edit keys and values of the text in the attentions to it that came nearest, or in others.

    One alone carries too little (docs/investigation.md).
    """
    places = reading_sites(denoiser)[:READ] if sites is None else list(sites)
    come = "come" if len(places) > 1 else "comes"
    why = f"Of all places that read the text {listed(places)} {come} nearest to the clean run."
    name = named(places)
    if ground.goal.kind == "balance":
        edit, told, rows = evenly(ground, places)
        return Change(f"debiasing of {name}", BY, f"{why} {told}", edit, rows)
    edit = locoedit(ground.model, ground.request, weights=places, keep=ground.kept)
    return Change(f"locoedit of {name}", BY, why, edit)


def listed(places: Sequence[str]) -> str:
    """Places in words, all of them."""
    *first, last = map(plain_site, places)
    return f"{', '.join(first)} and {last}" if first else last


def named(places: Sequence[str]) -> str:
    """Places in words, the first of them."""
    first = plain_site(places[0])
    return f"{first} and {len(places) - 1} more" if len(places) > 1 else first


def reading_sites(denoiser: Mediation) -> list[str]:
    """The attentions of the picture to the text, the one that came nearest to the clean run first.

    Raises:
        ValueError: if none was restored.
    """
    ranked = map(str, CausalMap.of(denoiser).ranked()["site"])
    found = list(dict.fromkeys(s for s in ranked if reads_text(Site(s))))
    if not found:
        raise UsageError("no attention to the text was restored, so none was found")
    return found


def reads_text(site: Site) -> bool:
    """Whether the picture has there what it reads of the text, in cross-attention or joint attention."""
    return site.kind in ("cross_attn.out", "joint_attn.out") and site.stream != "txt"


def evenly(ground: Ground, sites: Sequence[str] | None) -> tuple[Edit, str, int]:
    """Debias the word by counting and solving anew; what is to say of it, and its rows.

    Raises:
        ValueError: if nothing had to be changed, and without a judge.
    """
    goal, seeds = ground.goal, ground.seeds
    found = balance(
        ground.model, {goal.about: dict.fromkeys(goal.values, 0.5)}, ground.label, seeds=seeds,
        prompts=[ground.setup.wording.efficacy[0]], rounds=ROUNDS, keep=ground.kept, weights=sites,
        tolerance=0.5 / len(seeds), progress=ground.progress, **ground.settings,
    )  # fmt: skip
    if found.edit is None:
        raise UsageError(f"on {len(seeds)} other seeds {' and '.join(goal.values)} come evenly already")
    last = found.history[found.history["round"] == found.history["round"].max()].set_index("attribute")
    first = goal.values[0]
    told = f"With it {last.loc[first, 'share']:.0%} of {len(seeds)} other seeds are {first}."
    return found.edit, told, ground.rows(found.history["round"].nunique() * len(seeds))
