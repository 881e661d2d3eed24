"""Keeps what passes through sites in calls whose number of steps is not known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...models.base import Model
from ...models.places.account import Account, AccountError
from ...models.run.context import TEXT, CallContext, When
from ...models.run.levels import Step
from ...models.site import Site
from ...models.store.provenance import provenance
from ..intervene import Intervention
from ..trace import Trace, known_axes
from .guiding import Guide
from .state import Running, sized
from .texts import texts_of


class Recorder:
    """Keeps activations on the CPU until a run is over, and makes a Trace of them.

    Args:
        model: the opened pipeline.
        sites: what to keep.
        when: which steps, branch and samples of it.
        guide: whose log is part of the Trace.
    """

    def __init__(self, model: Model, sites: Sequence[Site], when: When, guide: Guide | None = None) -> None:
        self.model, self.sites, self.when, self.guide = model, sites, when, guide
        self.reads_prompts = True
        self.traces: list[Trace] = []
        self.account: Account | None = None
        self.failed()

    def failed(self) -> None:
        """Forget what was kept."""
        self.kept: dict[Site, list[Tensor]] = {}
        self.at: dict[Site, list[Step]] = {}
        self.steps: list[Step] = []
        if self.guide:
            self.guide.failed()

    def interventions(self) -> list[Intervention]:
        """Return what has to be planned for recording."""
        return [self._watch(site) for site in self.sites]

    def _watch(self, site: Site) -> Intervention:
        when = replace(self.when, steps=None) if site.component.startswith(TEXT) else self.when

        def keep(x: Tensor, context: CallContext) -> None:
            if context.step is not None:
                met = self.at.setdefault(site, [])
                if context.step in met:
                    raise AccountError(f"{site} was traced twice at step {context.step.index} of one run")
                met.append(context.step)
            self.kept.setdefault(site, []).append(x.detach().to("cpu", copy=True))

        return Intervention(site, keep, when)

    def step(self, step: Step) -> None:
        """A step of the run is made; its passes are one."""
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)

    def finished(self, run: Running) -> None:
        """Make a Trace of what was kept, and forget it."""
        acts: dict[Site, Tensor] = {}
        for site, parts in self.kept.items():
            acts[site] = torch.cat(parts) if site.component.startswith(TEXT) else torch.stack(parts)
            parts.clear()
        arguments = run.arguments or {}
        latents = torch.zeros(0) if run.latents is None else run.latents.detach()
        steps = tuple(self.steps)
        known = {n: arguments[n] for n in ("guidance_scale", "strength") if arguments.get(n) is not None}
        model = sized(self.model, arguments)
        about = provenance(
            model, pipeline=type(model.pipe).__name__, steps=len(steps), **known, **_negative(arguments)
        )
        prompts = tuple(run.prompts.get("cond", ()))
        met = next(iter(self.at.values()), steps)  # a branch may end before the run does
        kept = tuple(s for s in met if s in self.when)
        seeds, account = _seeds(arguments), self.account
        axes, rows = known_axes(model, list(acts)), self.when.rows
        log = self.guide.finished(model, steps) if self.guide else None
        self.traces.append(
            Trace(acts, kept, steps, prompts, seeds, latents, about, model.decode, account, axes, rows, log)
        )
        self.failed()


def _negative(arguments: Mapping[str, Any]) -> dict[str, Any]:
    texts = texts_of(arguments, "uncond") if "negative_prompt" in arguments else None
    return {} if texts is None else {"negative": texts[0] if len(texts) == 1 else texts}


def _seeds(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Return one seed a sample, where each has a generator of its own, which its latents come from."""
    given = arguments.get("generator")
    if arguments.get("latents") is not None:
        return ()
    return tuple(g.initial_seed() for g in given) if isinstance(given, (list, tuple)) else ()
