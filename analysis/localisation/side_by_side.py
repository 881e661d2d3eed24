"""Two models side by side, step by step: what the second one computes is there to be put into the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...models.base import Model, Prompt, SamplerState, State
from ...models.errors import WrongTypeError
from ...models.run.context import TEXT, Branch, CallContext, When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...probes.intervene import Intervention, intervening
from .bootstrap import Array

Changed: TypeAlias = Callable[[Model], AbstractContextManager[Any]]
"""What makes a model another one for a while: ``edit.applied``."""
Read: TypeAlias = tuple[Prompt, str | Prompt]
"""What a row of a run reads: the prompt, and the negative one."""
Kept: TypeAlias = dict[tuple[Site, Branch], Tensor]


def keep(site: Site, kept: Kept) -> Intervention:
    """Keep what passes through a site, for each branch."""

    def fn(x: Tensor, context: CallContext) -> None:
        kept[site, context.branch] = x.detach().clone()

    return Intervention(site, fn, When(branch=None))


def put(site: Site, kept: Kept, when: When) -> Intervention:
    """Give a site what was kept of it."""
    return Intervention(site, lambda x, c: kept[site, c.branch].to(x).expand_as(x), when)


@dataclass(eq=False)
class Pair:
    """Two models, and how both are run."""

    model: Model
    second: Model | Changed
    how: SamplingOptions
    own: bool
    rows: int = 0

    @contextmanager
    def other(self) -> Iterator[Model]:
        """The second model, as long as the context lasts."""
        if isinstance(self.second, Model):
            yield self.second
            return
        context = self.second(self.model)
        if not isinstance(context, AbstractContextManager):
            raise WrongTypeError(
                f"other gave a {type(context).__name__}, not a context; give a Model, or a function of a "
                "model whose result goes behind 'with', like edit.applied"
            )
        with context:
            yield self.model

    def read(self, model: Model, text: str, *probes: Intervention) -> Read:
        """Encode what a model reads."""
        guided = "uncond" in model.branch_names(self.how["guidance"])
        with torch.no_grad(), intervening(model, *probes):
            (prompt,) = model.encode([text])
            return prompt, model.negative([""])[0] if guided else ""

    def step(
        self, model: Model, reads: Sequence[Read], start: SamplerState, probes: Sequence[Intervention]
    ) -> State:
        """One step, with one read a row."""
        prompts, negative = [r[0] for r in reads], [r[1] for r in reads]
        how: SamplingOptions = {**self.how, "negative": "" if "" in negative else negative}
        with torch.no_grad():
            state = next(model.sample(prompts, seeds=start.seeds, start=start, interventions=probes, **how))
        self.rows += state.rows
        return state


class SideBySide:
    """One prompt and seed: both models, and the first with sites of the second."""

    def __init__(self, pair: Pair, text: str, seed: int, sites: Sequence[Site]) -> None:
        self.pair, self.text, self.seed, self.sites = pair, text, seed, sites
        self.encoders = [s for s in sites if s.component.startswith(TEXT)]
        self.ours, self.theirs = Kept(), Kept()
        self.here = pair.read(pair.model, text, *(keep(s, self.ours) for s in self.encoders))
        with pair.other() as other:
            self.there = pair.read(other, text, *(keep(s, self.theirs) for s in self.encoders))

    def alike(self) -> tuple[Array, Tensor, Tensor]:
        """Cosine and relative difference, [2, site, step], and the final latents of both, [1, ...]."""
        inside = [s for s in self.sites if s not in self.encoders]
        ours = [keep(s, self.ours) for s in inside]
        theirs = [keep(s, self.theirs) for s in inside]
        found = []
        for state, _ in self._steps([self.here], ours, theirs):
            first = state.latents
            found.append([_alike(self.ours[s, "cond"], self.theirs[s, "cond"]) for s in self.sites])
        *_, (_, last) = self._steps([], [], [])
        return np.asarray(found).transpose(2, 1, 0), first, last.latents

    def swapped(self, swaps: Sequence[tuple[Site, When]]) -> Tensor:
        """Final latents of the first model with each of some sites as in the second, [swap, ...]."""
        reads: list[Read] = []
        act: list[Intervention] = []
        look: list[Intervention] = []
        for row, (site, when) in enumerate(swaps):
            if site in self.encoders:
                reads.append(self.pair.read(self.pair.model, self.text, put(site, self.theirs, when)))
                continue
            reads.append(self.here)
            kept = Kept()
            act.append(put(site, kept, when).on(row))
            look.append(keep(site, kept).on(0 if self.pair.own else row))
        *_, (last, _) = self._steps(reads, act, look)
        return last.latents

    def _steps(
        self, reads: Sequence[Read], act: Sequence[Intervention], look: Sequence[Intervention]
    ) -> Iterator[tuple[State, State]]:
        """States of runs of the first model, one read a row, and of the second, which is a step ahead.

        Without any run of the first, the second runs alone, and both states are its own.
        """
        pair, how = self.pair, Sampling(**self.pair.how)
        ours = pair.model.start([self.seed] * max(len(reads), 1), how)
        theirs = pair.model.start([self.seed], how)
        for _ in pair.model.steps(how):
            shown = ours if reads and not pair.own else theirs
            with pair.other() as other:
                beside = pair.step(other, [self.there] * len(shown.latents), shown, look)
            state = pair.step(pair.model, reads, ours, act) if reads else beside
            ours, theirs = state.sampler_state(), beside.sampler_state()
            yield state, beside


def _alike(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Cosine and relative difference; of what is the same 1 and 0, also where it is 0."""
    if torch.equal(a, b.to(a)):
        return 1.0, 0.0
    a, b = a.double().flatten(), b.to(a.device).double().flatten()
    norms = float(a.norm()), float(b.norm())
    cosine = float(a @ b) / (norms[0] * norms[1]) if all(norms) else float("nan")
    return cosine, float((b - a).norm()) / norms[0] if norms[0] else float("nan")
