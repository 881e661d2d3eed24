"""Information says which words tell the same; UCE takes the shared part out of those, too.

Where w is redundant with the edited word, w's own reading still tells of it: the share of w's information
that is redundant is the amount of the word that UCE's debiasing takes out of w (Gandikota et al. 2024,
section 4.3, with a negative amount). For a balance the redundancy of the word with each attribute says to
which one it leans; UCE adds the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import xarray as xr

from ...editing.methods.uce import uce
from ...models.errors import UsageError
from ...models.text.prompt import occurrence
from .by_mediation import evenly
from .change import Change
from .ground import Ground, Offers

BY = "information"
SURE = 2.0
"""So many standard errors from 0 count."""


@dataclass(frozen=True)
class Shared:
    """What a word tells alike with another one.

    Args:
        word: the other one.
        nats: redundancy.
        error: its standard error, over noise and pictures.
        share: redundancy as a share of what the other word tells by itself.
    """

    word: str
    nats: float
    error: float
    share: float

    @property
    def sure(self) -> bool:
        """Whether it is clearly above 0."""
        return self.nats > SURE * self.error


def offer(ground: Ground, told: xr.Dataset | None, offers: Offers) -> None:
    """Add UCE's debiasing of the words that tell the same as the edited one."""
    if told is None:
        return
    what = "debiasing of redundant words"
    if ground.goal.kind == "balance":
        offers.attempt(BY, what, lambda: by_attribute(ground, told))
    else:
        offers.attempt(BY, what, lambda: by_words(ground, told))


def by_words(ground: Ground, told: xr.Dataset) -> Change:
    """Change the word, and take it out of the words that tell the same.

    Raises:
        ValueError: if there are none.
    """
    every = sorted(shared(told, ground.goal.about), key=lambda s: -s.nats)
    redundant = [s for s in every if s.sure and s.share > 0]
    if not redundant:
        most = (
            f"; most has “{every[0].word}” with {every[0].nats:.2f} ± {every[0].error:.2f} nats"
            if every
            else ""
        )
        raise UsageError(f"no other word clearly tells the same as {ground.goal.about!r}{most}")
    return debiased(ground, {s.word: min(1.0, s.share) for s in redundant}, _why(ground, redundant))


def debiased(ground: Ground, shares: dict[str, float], why: str) -> Change:
    """UCE's edit of the word, and so much of it taken out of others."""
    amounts = {occurrence(word)[0]: {ground.goal.about: -share} for word, share in shares.items()}
    edit = uce(ground.model, ground.request, debias=amounts, keep=ground.kept)
    words = ", ".join(f"“{word}”" for word in amounts)
    return Change(f"uce, and {words} debiased", BY, why, edit)


def by_attribute(ground: Ground, told: xr.Dataset) -> Change:
    """Balance the word where it shares more with one attribute than with the other.

    Raises:
        ValueError: if it leans to neither clearly.
    """
    goal = ground.goal
    found = {s.word: s for s in shared(told, goal.about)}
    first, second = (found[value] for value in goal.values)
    gap, error = first.nats - second.nats, math.hypot(first.error, second.error)
    both = f"{first.nats:.0f} nats with “{first.word}”, {second.nats:.0f} with “{second.word}”"
    if abs(gap) <= SURE * error:
        raise UsageError(
            f"{goal.about!r} clearly leans to neither: it shares {both}, {gap:.0f} ± {error:.0f} apart"
        )
    edit, counted, rows = evenly(ground, None)
    why = f"“{goal.about}” shares {both} ({gap:.0f} ± {error:.0f} apart), so it is debiased. {counted}"
    return Change(f"“{goal.about}” debiased in all layers", BY, why, edit, rows)


def shared(told: xr.Dataset, about: str) -> Iterator[Shared]:
    """What each other word tells alike with one; over pictures the mean, with the error of both."""
    redundancy, own = told["pair_nats"].sel(part="redundancy"), told["pair_nats"]
    for i, (first, second) in enumerate(zip(told["first"].values, told["second"].values, strict=True)):
        names = [occurrence(str(w))[0].lower() for w in (first, second)]
        if about.lower() not in names:
            continue
        at = 1 - names.index(about.lower())
        other, r = str((first, second)[at]), redundancy[:, i]
        noise = float((told["pair_stderr"].sel(part="redundancy")[:, i] ** 2).mean()) ** 0.5
        spread = float(r.std(ddof=1)) if r.size > 1 else 0.0
        nats = float(own.sel(part=f"information {at + 1}")[:, i].mean())
        error = max(noise, spread) / r.size**0.5
        yield Shared(other, float(r.mean()), error, float(r.mean()) / nats if nats > 0 else 0.0)


def _why(ground: Ground, found: list[Shared]) -> str:
    words = ", ".join(f"“{s.word}” {s.nats:.2f} ± {s.error:.2f} nats" for s in found)
    return f"What “{ground.goal.about}” tells of a picture is told as well by {words}."
