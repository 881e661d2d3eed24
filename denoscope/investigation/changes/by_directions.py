"""Directions: what the wanted words change in the text and at sites; added while it runs, or frozen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

from ...analysis.directions.site import site_direction
from ...analysis.directions.token import Rows, token_direction
from ...analysis.mediation.result import Mediation
from ...editing.freezing import freeze
from ...models.errors import UsageError
from ...probes.direction import Direction
from ...probes.intervene import Intervention
from .acting import Steer
from .by_mediation import READ, listed, named, reading_sites, reads_text
from .change import Change
from .ground import Ground, Offers

BY = "directions"
TEXT_END: tuple[Rows, ...] = ("end", "padding", "pooled")
"""Rows of texts that do not hold the word."""


def offer(ground: Ground, denoiser: Mediation | None, offers: Offers) -> None:
    """Add steerings along the text's difference and that at sites, and the latter frozen into weights."""
    offers.attempt(BY, "steering along the text's difference", lambda: of_text(ground))
    offers.attempt(BY, "steering at sites", lambda: at_sites(ground, sites_of(ground, denoiser)))


def of_text(ground: Ground, direction: Direction | None = None) -> Change:
    """Steer the encoded text along the difference of wanted and plain texts."""
    found = text_direction(ground) if direction is None else direction
    why = f"What “{ground.goal.asked[-1]}” changes in the encoded text of {len(ground.templates)} wordings."
    return _steered(ground, found, "the encoded text", why)


def text_direction(ground: Ground) -> Direction:
    """The difference of texts, at the word's own tokens where both texts have it or its like."""
    goal, (positive, negative) = ground.goal, ground.pairs()
    if goal.kind == "remove":
        return token_direction(ground.model, positive, negative, goal.about, rows=TEXT_END)
    own = goal.meant if goal.kind == "change_to" else goal.about
    found = token_direction(ground.model, positive, negative, own, negative_subject=goal.about)
    return found.of(goal.about) if found.rows else found


def at_sites(ground: Ground, sites: Sequence[str]) -> list[Change]:
    """Steer at sites along the differences of both prompts' means there; and the same frozen into weights.

    One site alone moves too little, as one layer does (docs/investigation.md).
    """
    positive, negative = ground.pairs()
    how = {"seeds": ground.seeds, "progress": ground.progress, **ground.settings}
    found = reduce(add, [site_direction(ground.model, s, positive, negative, **how) for s in sites])
    rows = ground.rows(2 * len(positive) * len(ground.seeds) * len(sites))
    why = f"The difference of both prompts' means at {listed(sites)}, {found.norm():.3g} long."
    steered = _steered(ground, found, named(sites), why, rows)
    return [steered, *_frozen(ground, steered)]


def sites_of(ground: Ground, denoiser: Mediation | None) -> list[str]:
    """The attentions to the text that mediation found; without mediation, those in the middle.

    Raises:
        ValueError: for a denoiser that does not attend to the text.
    """
    if denoiser is not None:
        return reading_sites(denoiser)[:READ]
    found = [str(s) for s in ground.model.sites(f"{ground.model.input_site.component}/**") if reads_text(s)]
    if not found:
        raise UsageError("the denoiser does not attend to the text anywhere")
    first = max(0, (len(found) - READ + 1) // 2)
    return found[first : first + READ]


def _steered(ground: Ground, found: Direction, place: str, why: str, rows: int = 0) -> Change:
    """Steer where the word is said; for a balance as far as makes both come evenly."""
    word, strength = ground.goal.about, 1.0
    if ground.goal.kind == "balance":
        towards = ground.rarer()
        if towards != ground.goal.values[0]:
            found = -found

        def push(s: float) -> tuple[Intervention, ...]:
            return Steer(found, s, word).interventions

        strength, told, tried = ground.balanced(towards, push)
        why, rows = f"{why} Towards “{towards}”: {told}.", rows + tried + ground.rows(len(ground.seeds))
    return Change(f"steering of {place}", BY, why, Steer(found, strength, word), rows)


def _frozen(ground: Ground, steered: Change) -> list[Change]:
    """The same in weights: everywhere, in both branches, for all prompts."""
    act = steered.act
    if not isinstance(act, Steer):
        return []
    always = Steer(act.direction, act.strength, branch=None).interventions
    why = f"{steered.why} In weights it acts on every prompt."
    return [Change(f"{steered.name}, frozen", BY, why, freeze(ground.model, always))]
