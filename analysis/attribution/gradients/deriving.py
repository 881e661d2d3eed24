"""How attributions are derived: a scalar of a moment, a target, and the method between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....models.errors import UsageError
from ....models.site import Site
from ....models.suggest import near
from .captum_methods import GAMES, METHODS, MOST_PLAYERS, by_games, by_gradients
from .gathering import Found, of_latents, of_site, of_words
from .scalars import Moment, Scored, scored
from .targets import Activations, Baseline, Latents, Target, TextRows


@dataclass(frozen=True)
class Method:
    """How something is attributed to what.

    Args:
        name: one of captum_methods' ``METHODS``.
        places: "words", "latents", or sites.
        given: the baseline that was asked for.
        points: of a path.
        orders: of players; None is all.
        batch: rows at once.

    Raises:
        ValueError: for what does not go together.
    """

    name: str
    places: list[Site] | str
    given: Baseline | None
    points: int
    orders: int | None
    batch: int

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise UsageError(f"method is {self.name!r}; {near(self.name, METHODS)}")
        if self.name in GAMES and self.places != "words":
            raise UsageError(f"{self.name!r} is a game of words; take to='words', or another method")
        if self.given not in (None, "against", "zero"):
            raise UsageError(f"baseline is {self.given!r}; it is 'against' or 'zero'")
        if self.places == "latents" and self.given == "against":
            raise UsageError("latents are of no text; their baseline is 'zero'")
        for what, n in (("points", self.points), ("batch", self.batch), ("orders", self.orders)):
            if n is not None and not 1 <= n <= 10**6:
                raise UsageError(f"{what} is {n}; it is a whole number from 1 up")

    @property
    def baseline(self) -> Baseline:
        """Where paths begin."""
        return self.given or ("zero" if self.places == "latents" else "against")

    @property
    def told(self) -> dict[str, Any]:
        """What it is, as JSON for provenance."""
        to = self.places if isinstance(self.places, str) else "sites"
        sites = [] if to == self.places else [str(s) for s in self.places]
        how = {"method": self.name, "to": to, "sites": sites, "baseline": self.baseline}
        return {**how, "points": self.points, "orders": self.orders or "all"}

    def check_players(self, n: int) -> None:
        """Raise ValueError for more players than have orders that can be walked through."""
        if self.name == "shapley" and self.orders is None and n > MOST_PLAYERS:
            raise UsageError(
                f"{n} players have too many orders to walk through all; give orders=32, or name fewer words"
            )

    def attributed(self, moment: Moment, of: Any, players: dict[str, list[int]]) -> Found:
        """Return the attributions of one prompt and seed, by name."""
        score = scored(of, moment)
        if self.places == "words":
            target = TextRows.of(moment, self.baseline)
            if self.name in GAMES:
                return self._played(target, score, players)
            found = self._values(target, score)
            return of_words(found, players, self.name) | _ends(target, score)
        if self.places == "latents":
            latents = Latents(moment)
            return of_latents(self._values(latents, score), moment, self.name) | _ends(latents, score)
        parts = []
        for site in self.places:
            there = Activations.of(moment, Site(str(site)), self.baseline)
            parts.append(of_site(self._values(there, score), there, self.name) | _ends(there, score))
        return {"sites": parts}

    def _values(self, target: Target, score: Scored) -> Tensor:
        def f(x: Tensor) -> Tensor:
            return score(*target.given(x))

        with torch.enable_grad():
            _check_reaches(f, target.x)
            return by_gradients(self.name, f, target.x, target.baseline, self.points, self.batch)

    def _played(self, target: TextRows, score: Scored, players: dict[str, list[int]]) -> Found:
        there = torch.zeros(len(players), target.x.shape[1], device=target.x.device, dtype=target.x.dtype)
        for i, rows in enumerate(players.values()):
            there[i, rows] = 1

        def f(coalitions: Tensor) -> Tensor:
            kept = (coalitions.to(there) @ there)[..., None]
            return score(*target.given(torch.where(kept > 0, target.x, target.baseline)))

        worth = by_games(self.name, f, len(players), self.orders)
        return {"words": dict(zip(players, worth.tolist(), strict=True))} | _ends(target, score)


def _check_reaches(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Raise UsageError where a number does not depend on an input: its gradients would be silent zeros."""
    given = x.detach().clone().requires_grad_()
    made = f(given)
    slope = None
    if made.requires_grad:
        (slope,) = torch.autograd.grad(made.sum(), given, allow_unused=True)
    if slope is None:
        raise UsageError(
            "the number does not depend on what it is attributed to: a metric that rounds or detaches, or a "
            "site whose output is not read for it"
        )
    if not bool(slope.isfinite().all()):
        raise UsageError("the number's gradient is not finite here; take one that is smooth")


def _ends(target: Target, score: Scored) -> Found:
    """The number itself, and at the baseline."""
    with torch.no_grad():
        first, last = (float(score(*target.given(x))[0]) for x in (target.x, target.baseline))
    return {"score": first, "reference": last}
