"""Features that are made stronger, weaker or fixed while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ...models.adapter import Adapter
from ...models.errors import StateError, UsageError
from ...models.run.context import CallContext, When
from ...models.run.levels import Step
from ..intervene import Intervention, Spec
from .channels import Channels
from .codes import Codes, check_features

MOST = torch.finfo(torch.float32).max
HOW: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scale": lambda z, by: z * by,
    "add": lambda z, by: z + by,
    "set": lambda z, by: by.expand_as(z),
}


class Editable(Protocol):
    """What of a dictionary an edit needs."""

    @property
    def channels(self) -> Channels:
        """What it is over."""

    @property
    def decoder(self) -> Tensor:
        """The features, [feature, channel]."""

    @property
    def digest(self) -> str:
        """A hash of what it computes."""

    def encode(self, x: Tensor, steps: Step | Sequence[Step] | None = None) -> Codes:
        """Return sparse codes."""

    def check(self, model: Adapter) -> None:
        """Raise an error if it is not of a model."""


@dataclass(frozen=True)
class Change:
    """What is done to some features.

    Args:
        dictionary: whose.
        features: which.
        how: "scale", "add" or "set".
        by: the number for each feature.
    """

    dictionary: Editable
    features: tuple[int, ...]
    how: str
    by: tuple[float, ...]

    def __call__(self, x: Tensor, context: CallContext) -> Tensor | None:
        """Change an activation that is encoded itself."""
        return self.added(x, x, context)

    def added(self, x: Tensor, read: Tensor, context: CallContext) -> Tensor | None:
        """Return x with what the changed features add: the error of the dictionary, and its bias, stay.

        Args:
            x: what is changed, [row, ...].
            read: what is encoded, [row, ...].
            context: of the rows.
        """
        z = self.dictionary.encode(read, context.step).of(self.features)
        change = HOW[self.how](z, z.new_tensor(self.by)) - z
        if not bool(change.any()):
            return None
        rows = change @ self.dictionary.decoder[list(self.features)].to(change)
        return (x.float() + self.dictionary.channels.restored(rows)).to(x.dtype)


@dataclass(frozen=True)
class DictionaryEdit(Intervention):
    """An intervention on features; where another site is encoded, that one is watched in the same call."""

    fn: Change

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        """Return one intervention, or two: one that reads the source, and one that acts."""
        self.fn.dictionary.check(model)
        channels = self.fn.dictionary.channels
        if channels.source is None:
            return (Intervention(self.site, self.fn, self.when, self.spec),)
        seen: dict[Any, Tensor] = {}
        act = partial(_from_source, self.fn, seen)
        return (
            Intervention(channels.source, partial(_note, seen), self.when, Spec("read", {})),
            Intervention(self.site, act, self.when, self.spec),
        )


def _note(seen: dict[Any, Tensor], x: Tensor, context: CallContext) -> None:
    seen[_call(context)] = x.clone()


def _from_source(change: Change, seen: dict[Any, Tensor], x: Tensor, context: CallContext) -> Tensor | None:
    channels = change.dictionary.channels
    before = seen.pop(_call(context), None)
    if before is None:
        raise StateError(
            f"{channels.site} ran before {channels.source}, which the dictionary reads; a source comes first"
        )
    return change.added(x, x - before if channels.kind == "update" else before, context)


def _call(context: CallContext) -> tuple[Any, ...]:
    return context.branch, context.step, context.samples


def acting(
    dictionary: Editable,
    features: int | Sequence[int],
    amounts: Mapping[str, float | Sequence[float] | None],
    steps: Collection[int] | None,
    branch: str | None,
) -> DictionaryEdit:
    """Return the edit of some features; see ``Dictionary.edit``."""
    chosen = check_features([features] if isinstance(features, int) else features, len(dictionary.decoder))
    given = {how: amount for how, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        raise UsageError(f"an edit is one of scale, add, set; got {', '.join(given) or 'none of them'}")
    ((how, amount),) = given.items()
    by = [float(amount)] * len(chosen) if isinstance(amount, (int, float)) else list(map(float, amount))
    if len(by) != len(chosen) or not all(abs(b) <= MOST for b in by):
        raise UsageError(
            f"{how} is {amount}; it is one finite number, or one for each of {len(chosen)} features"
        )
    change = Change(dictionary, tuple(chosen), how, tuple(by))
    spec = Spec("dictionary", {"dictionary": dictionary.digest, "features": chosen, how: by})
    return DictionaryEdit(dictionary.channels.site, change, When(steps, branch), spec)


__all__ = ["Change", "DictionaryEdit", "acting"]
