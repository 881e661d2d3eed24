"""Values found by optimisation: what a layer should add at some tokens, so that one word is read as another.

ReFACT (Arad, Orgad, Belinkov 2024, eq. 1), after ROME (Meng et al. 2022): δ is added to what an MLP gives at
the tokens of the word, in all wordings alike, and moved by Adam until the encoder's answer is that of the
target. All requests of a batch are optimised together, and each as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import check_fields
from ..models.base import Model
from ..models.errors import UsageError
from ..models.fit import fit
from ..models.places.hooks import hooked
from ..models.progress import Progress, part, showing
from ..models.site import Site
from .lookup import Lookup
from .requests import Tokens

Objective = Literal["states", "contrast"]


@dataclass(frozen=True)
class Search:
    """How values are looked for. The defaults are what works on the embedded model (docs/edits.md).

    Args:
        objective: ``"states"``: the squared distance to the target text's states, token by token from the
            word to the end of the padding, as a share of what it was; ``"contrast"``: ReFACT's
            -log softmax_j(-‖E(s) - E(x_j)‖) over target, source and other texts, E the end token's state.
        tokens: where something is added: at the word's last token (the papers' choice), or also at the end
            token and at the padding; each of the three has a value of its own.
        steps: of Adam, at most.
        rate: its learning rate.
        stop: a request is done at this probability of the target, or this share of the distance gone.
        ball: ‖δ‖ is at most this many times the length of what the layer gave.
        decay: weight of ‖δ‖ / ‖v0‖² in the loss.

    Raises:
        ValueError: for a number that makes no sense, or another choice.
    """

    objective: Objective = "states"
    tokens: Tokens = "subject+end"
    steps: int = 60
    rate: float = 0.2
    stop: float = 0.99
    ball: float = 4.0
    decay: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        good = {
            "steps": 1 <= self.steps <= 100_000,
            "rate": 0 < self.rate < float("inf"),
            "stop": 0 < self.stop <= 1,
            "ball": 0 < self.ball < float("inf"),
            "decay": 0 <= self.decay < float("inf"),
        }
        for name, fits in good.items():
            if not fits:
                default = Search.__dataclass_fields__[name].default
                raise UsageError(f"{name} is {getattr(self, name)}; the default is {default}")


PAPER = Search("contrast", "subject", steps=100, rate=0.05, stop=0.99, ball=4.0, decay=0.1)
"""As ReFACT was published: the paper's objective, and the settings of its README and of ROME's files."""


def chosen_search(settings: Search | str | None) -> Search:
    """Return the settings that are meant: None is the default, "paper" the published ones.

    Raises:
        ValueError: for another name.
    """
    if isinstance(settings, Search):
        return settings
    if settings not in (None, "paper"):
        raise UsageError(f"settings is {settings!r}; it is None, 'paper' or a Search(...)")
    return Search() if settings is None else PAPER


def find_values(
    model: Model,
    site: Site,
    lookups: Sequence[Lookup],
    search: Search,
    *,
    contrast: Sequence[str] = (),
    progress: Progress | None = None,
) -> Float[Tensor, "value out"]:
    """Return what to add to what a layer gives at each place of some lookups, in float64.

    Args:
        model: an opened model; nothing of it is changed.
        site: the layer, ``mlp.out``; the lookups' tails begin with its block.
        lookups: batches of requests.
        search: how to look.
        contrast: other texts of the contrastive objective.
        progress: called with (done, total, what).

    Raises:
        ValueError: as ``model.encode``, of ``contrast``.
        RuntimeError: if the loss is not finite.
    """
    found, total = [], len(lookups) * search.steps
    with showing(progress) as show:
        for i, lookup in enumerate(lookups):
            step = part(show, i * search.steps, search.steps, total, "looking for values")
            found.append(_Looking(model, site, lookup, search, contrast).look(step))
    return torch.cat(found).double()


class _Looking:
    """One batch of requests under way."""

    def __init__(
        self, model: Model, site: Site, lookup: Lookup, search: Search, contrast: Sequence[str]
    ) -> None:
        self.model, self.site, self.lookup, self.search = model, site, lookup, search
        given = lookup.clean(model, site).cpu()
        self.length = lookup.mean(given).norm(dim=1).float()
        self.delta = torch.zeros(given[0].shape[-1:]).repeat(len(self.length), 1).requires_grad_()
        self.kept = torch.zeros_like(self.delta, requires_grad=False)
        self.done = torch.zeros(lookup.requests, dtype=torch.bool)
        self.others = lookup.contrasts(model, contrast) if search.objective == "contrast" else None

    def look(self, progress: Progress) -> Tensor:
        """Return the values, [value, out]."""
        adam: Any = partial(torch.optim.Adam, lr=self.search.rate)
        with torch.enable_grad(), hooked(self.model, [(self.site, self._add)]):
            fit([self.delta], self._loss, steps=self.search.steps, optimizer=adam, progress=progress)
        self._project()
        return torch.where(self.done[self.lookup.asked][:, None], self.kept, self.delta.detach())

    def _add(self, x: Tensor) -> tuple[slice, Tensor]:
        at, of = self.lookup.at, self.lookup.value
        where = tuple(index.to(x.device) for index in at)
        return slice(0, len(x)), x.index_put(where, self.delta[of].to(x), accumulate=True)

    def _loss(self, step: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - as fit calls it
        self._project()
        if bool(self.done.all()):
            return 0 * self.delta.sum()
        each = self.lookup.distance(self.others)
        sure = 1 - each if self.others is None else (-each).exp()
        now = (sure.detach() >= self.search.stop) & ~self.done
        mine = now[self.lookup.asked]
        self.kept[mine] = self.delta.detach()[mine]
        self.done |= now
        decay = self.search.decay * self.delta.norm(dim=1) / self.length.square().clamp_min(1e-30)
        open_ = ~self.done
        total: Tensor = each[open_].sum() + decay[open_[self.lookup.asked]].sum() + 0 * self.delta.sum()
        return total

    @torch.no_grad()
    def _project(self) -> None:
        """Put what left the ball back on it."""
        most = self.search.ball * self.length
        self.delta.mul_((most / self.delta.norm(dim=1).clamp_min(1e-30)).clamp(max=1)[:, None])
