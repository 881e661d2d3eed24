"""What a scalar is attributed to: rows of the encoded text, first latents, or activations at a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from ....models.base import Model, Prompt
from ....models.errors import NotFoundError, UsageError
from ....models.run.context import CallContext
from ....models.site import Site
from ....models.suggest import near
from ....probes.intervene import Intervention, Probe
from ....probes.trace import expand
from ...carriers.text_rows import kinds_of
from .scalars import Moment

Baseline: TypeAlias = Literal["against", "zero"]
Given: TypeAlias = tuple[Sequence[Prompt], Tensor, Sequence[Probe]]
"""Prompts, latents and interventions of some rows."""


class Target(Protocol):
    """An input of a moment, and how a run is given other values of it."""

    @property
    def x(self) -> Tensor:
        """The input, [1, ...]."""

    @property
    def baseline(self) -> Tensor:
        """Where paths to it begin."""

    def given(self, x: Tensor) -> Given:
        """What runs are given for inputs [row, ...]."""
        ...


@dataclass(frozen=True, eq=False)
class TextRows:
    """The encoded text, [1, token, channel]; a pooled text stays as it is."""

    moment: Moment
    x: Tensor
    baseline: Tensor

    @classmethod
    def of(cls, moment: Moment, baseline: Baseline) -> TextRows:
        """Return the rows of a moment's prompt."""
        x, other = moment.prompt.embeds[None], moment.against.embeds[None]
        if x.shape != other.shape:
            raise UsageError(
                f"{moment.prompt.text!r} has {x.shape[1]} rows and {moment.against.text!r} {other.shape[1]}; "
                "rows can be compared where texts are padded to one length"
            )
        return cls(moment, x, torch.zeros_like(x) if baseline == "zero" else other.to(x))

    def given(self, x: Tensor) -> Given:
        """Prompts of these rows."""
        prompts = [replace(self.moment.prompt, embeds=rows) for rows in x]
        return prompts, self.moment.latents.expand(len(x), *self.moment.latents.shape[1:]), ()


@dataclass(frozen=True, eq=False)
class Latents:
    """What the network is given first."""

    moment: Moment

    @property
    def x(self) -> Tensor:
        """The latents, [1, ...]."""
        return self.moment.latents

    @property
    def baseline(self) -> Tensor:
        """None of them."""
        return torch.zeros_like(self.x)

    def given(self, x: Tensor) -> Given:
        """The same prompt."""
        return [self.moment.prompt] * len(x), x, ()


@dataclass(frozen=True, eq=False)
class Activations:
    """What passes through a site in the rows that read the prompt, at all steps, [1, step, ...]."""

    moment: Moment
    site: Site
    steps: Sequence[int]
    x: Tensor
    baseline: Tensor

    @classmethod
    def of(cls, moment: Moment, site: Site, baseline: Baseline) -> Activations:
        """Return those of a moment; the baseline is what the other text has there, or zeros."""
        steps, x = _recorded(moment, site, moment.prompt)
        other = torch.zeros_like(x) if baseline == "zero" else _recorded(moment, site, moment.against)[1]
        return cls(moment, site, steps, x, other)

    def given(self, x: Tensor) -> Given:
        """The same prompt, with other activations."""

        def put(there: Tensor, context: CallContext) -> Tensor:
            step = self.steps.index(_index(context))
            return x[list(context.samples), step].to(there)

        latents = self.moment.latents.expand(len(x), *self.moment.latents.shape[1:])
        return [self.moment.prompt] * len(x), latents, [Intervention(self.site, put)]


def _recorded(moment: Moment, site: Site, prompt: Prompt) -> tuple[list[int], Tensor]:
    seen: dict[int, Tensor] = {}

    def keep(x: Tensor, context: CallContext) -> None:
        seen[_index(context)] = x.detach().clone()

    with torch.no_grad():
        moment.outcome([prompt], moment.latents, [Intervention(site, keep)])
    return list(seen), torch.stack(list(seen.values()), 1)


def _index(context: CallContext) -> int:
    return -1 if context.step is None else context.step.index


def places_named(model: Model, to: str | Site | Sequence[Site | str]) -> list[Site] | str:
    """Return "words", "latents", or sites of the denoiser.

    Raises:
        LookupError: for names and sites that there are not; the message names near misses.
        ValueError: for no sites, and sites of text encoders.
    """
    if to in ("words", "latents"):
        return str(to)
    if isinstance(to, str) and "/" not in to:
        raise NotFoundError(f"to is {to!r}; give sites of the denoiser, or: {near(to, ['words', 'latents'])}")
    sites = expand(model, to)
    if not sites:
        raise UsageError("to is empty; it is 'words', 'latents', or sites of the denoiser")
    for site in sites:
        if site.component.startswith("text_encoder"):
            raise UsageError(f"{site} is in a text encoder, which has run before; take to='words'")
    return sites


def players_of(prompt: Prompt, words: Sequence[str] | None) -> dict[str, list[int]]:
    """Return the rows of each word, and of what is none: begin, other words, end, padding; each row once.

    Raises:
        LookupError: for a word that the prompt does not hold.
        ValueError: for words that share rows, and no words.
    """
    names = list(dict.fromkeys(w.lower() for w in prompt.words)) if words is None else list(words)
    if words is None:
        names = [n for n in names if prompt.reads(n)]
    if words is not None and not names:
        raise UsageError("words is empty; give some, or None for all of the prompt")
    found = {name: prompt.find(name) for name in names}
    taken = [row for rows in found.values() for row in rows]
    if twice := [row for row in taken if taken.count(row) > 1]:
        both = [name for name, rows in found.items() if twice[0] in rows]
        raise UsageError(
            f"{' and '.join(map(repr, both))} share a token of {prompt.text!r}; give one of them"
        )
    for row, kind in enumerate(kinds_of(prompt, None)):
        if row not in taken:
            found.setdefault({"words": "(other words)"}.get(kind, f"({kind})"), []).append(row)
    return found
