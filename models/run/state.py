"""A run just after a step, and what is needed to go on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import checked
from ..errors import UsageError
from ..html import Brief
from ..text.prompt import Prompt
from .context import Branch
from .levels import Step
from .noise import generators
from .schedule import copied, scheduler_join, scheduler_rows
from .tables import indices

if TYPE_CHECKING:
    from ..places.account import Account


@dataclass(frozen=True, eq=False, repr=False)
class SamplerState(Brief):
    """Everything needed to go on from one moment of a run; rows can be taken out of it.

    Args:
        index: the next step's index.
        latents: [sample, ...], in the scheduler's own scale.
        scheduler: a private copy, with its memory of earlier steps.
        noise_states: the state of each sample's noise source.
        known: outputs of branches at the next step, where another run knows them already; each [sample, ...].
        memory: what the guidance carries from step to step; each [sample, ...].
    """

    index: int
    latents: Tensor
    scheduler: Any
    noise_states: tuple[Tensor, ...]
    known: Mapping[Branch, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each sample's noise source."""
        return tuple(torch.Generator().set_state(s).initial_seed() for s in self.noise_states)

    @checked
    def rows(self, rows: Sequence[int]) -> SamplerState:
        """Return the state of some samples, in the order given; samples may repeat."""
        chosen, n = list(rows), len(self.latents)
        if not chosen or not all(0 <= row < n for row in chosen):
            raise UsageError(f"rows are {chosen}; they are some of the state's samples 0 to {n - 1}")

        def some(x: Tensor) -> Tensor:
            return x[indices(chosen, x.device)]

        return SamplerState(
            self.index,
            some(self.latents),
            scheduler_rows(self.scheduler, chosen, self.latents.shape),
            tuple(self.noise_states[i] for i in chosen),
            {name: some(x) for name, x in self.known.items()},
            {name: some(x) for name, x in self.memory.items()},
        )

    @checked
    def reseeded(self, seeds: Sequence[int]) -> SamplerState:
        """Return the state with fresh noise sources: children of one state that differ from here on.

        They differ where noise is still drawn (a stochastic scheduler), and are equal elsewhere.

        Raises:
            ValueError: unless there is one seed for each sample.
        """
        if len(seeds) != len(self.latents):
            raise UsageError(f"{len(seeds)} seeds for {len(self.latents)} samples; give one for each")
        return replace(self, noise_states=tuple(g.get_state() for g in generators(seeds)))

    @staticmethod
    @checked
    def join(parts: Sequence[SamplerState]) -> SamplerState:
        """Return one state of the samples of several, taken at the same step of one schedule.

        Raises:
            ValueError: for states of different steps.
        """
        if not parts or len({p.index for p in parts}) != 1:
            raise UsageError(f"states are at steps {[p.index for p in parts]}; join those of one step")
        return SamplerState(
            parts[0].index,
            torch.cat([p.latents for p in parts]),
            scheduler_join([(p.scheduler, p.latents.shape) for p in parts]),
            tuple(s for p in parts for s in p.noise_states),
            _joined([p.known for p in parts]),
            _joined([p.memory for p in parts], whole=True),
        )


@dataclass(frozen=True, eq=False, repr=False)
class State(Brief):
    """A run just after one step.

    Args:
        step: the step that was made.
        latents: after the step, [sample, ...], in the scheduler's own scale.
        model_input: what the network was given at this step, [sample, ...].
        output: the guided network output at this step, [sample, ...].
        outputs: the output of each guidance branch, [sample, ...].
        rows: how many rows the network computed at this step.
        added: what each part of the guidance added to the conditional output, [sample, ...]; empty where
            nothing was.
        prompts: what each sample reads.
        account: of the run so far: which interventions acted where and when.
    """

    step: Step
    latents: Tensor
    model_input: Tensor
    output: Tensor
    outputs: Mapping[Branch, Tensor]
    rows: int
    added: Mapping[str, Tensor]
    prompts: tuple[Prompt, ...]
    account: Account
    _run: tuple[Any, list[torch.Generator], Mapping[str, Tensor]] = field(repr=False)

    @property
    def uncond(self) -> Tensor | None:
        """The unconditional output, [sample, ...]; None in an unguided run."""
        return self.outputs.get("uncond")

    @property
    def memory(self) -> Mapping[str, Tensor]:
        """What the guidance carries to the next step, each [sample, ...]."""
        return self._run[2]

    def sampler_state(self) -> SamplerState:
        """Freeze the run here, to be continued by ``sample(start=...)``; call it before the next step."""
        scheduler, generators, memory = self._run
        noise = tuple(g.get_state() for g in generators)
        return SamplerState(self.step.index + 1, self.latents, copied(scheduler), noise, memory=memory)


def _joined(parts: Sequence[Mapping[str, Tensor]], whole: bool = False) -> dict[str, Tensor]:
    """Join what every part has; with ``whole``, parts that have different things are an error."""
    names = [n for n in parts[0] if all(n in p for p in parts)]
    if whole and any(set(p) != set(names) for p in parts):
        raise UsageError(f"states remember different things: {[sorted(p) for p in parts]}; join equal runs")
    return {n: torch.cat([p[n] for p in parts]) for n in names}
