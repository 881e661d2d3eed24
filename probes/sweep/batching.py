"""How a sweep is batched: plain runs first, then the changed ones from where they begin to differ.

A run that first differs from its plain run at step k starts from the plain run's latent at step k, and takes
over its unconditional output there. Rows of one batch are independent, so this changes nothing but the cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ...models.base import Model, Prompt, SamplerState, State
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.run.tables import indices
from ..intervene import Intervention
from .partition import Batch, ChangedBatch, Finished, Key, PlainBatch, SweepRun, Timed, key_of, partition


class Memory:
    """Where finished batches are kept; this one keeps none."""

    def find(self, batch: Batch) -> Finished | None:  # noqa: ARG002
        """Return what a batch came to, if it is there."""
        return None

    def keep(self, batch: Batch, made: Finished, seconds: float) -> Finished:  # noqa: ARG002
        """Keep what a batch came to in so many seconds, and return it."""
        return made


class Workers(Protocol):
    """Who else makes batches."""

    def make(self, model: Model, settings: SamplingOptions, batches: Sequence[Batch]) -> Iterator[Timed]:
        """Yield each batch with what it came to and the seconds it took, in any order."""
        ...


WORKERS: ContextVar[Workers | None] = ContextVar("WORKERS", default=None)
"""Who makes the batches of the sweeps of this context; None is this process."""


class SweepExecutor:
    """The state of one sweep: what is done, and what it cost in network rows."""

    def __init__(
        self, model: Model, settings: SamplingOptions, batch: int = 1, memory: Memory | None = None
    ) -> None:
        self.model, self.settings, self.batch, self.memory = model, settings, batch, memory or Memory()
        self.branches = model.branch_names(settings.get("guidance"))
        self.rows = 0
        self.finals: dict[Key, Tensor] = {}
        self.starts: dict[tuple[Key, int], SamplerState] = {}
        self.made: set[PlainBatch] = set()
        self.report: Callable[[int], None] = lambda _: None

    def make(self, runs: Sequence[SweepRun]) -> Tensor:
        """Return the final latents of each run, [run, ...]."""
        plain, changed = partition(runs, self.batch, self.branches)
        every: list[Batch] = [*plain, *changed]
        there = {batch: self.memory.find(batch) for batch in every}
        for batch, found in there.items():
            if found is not None:
                self._done(batch, *found)
        missing = [batch for batch, found in there.items() if found is None]
        workers = WORKERS.get()
        with torch.no_grad():
            each: Iterable[Timed] = map(self.one, missing)
            if workers is not None:
                each = workers.make(self.model, self.settings, missing)
            for batch, made, seconds in each:
                self._done(batch, *self.memory.keep(batch, made, seconds))
        return torch.stack([self.finals[key_of(r)] for r in runs])

    def one(self, batch: Batch) -> Timed:
        """Make one batch; it needs the moments from which it starts, or makes the plain runs again."""
        start = time.perf_counter()
        made = self._plain(batch) if isinstance(batch, PlainBatch) else self._changed(batch)
        return batch, made, time.perf_counter() - start

    def _plain(self, batch: PlainBatch) -> tuple[Tensor, int]:
        """Make the runs nothing is done to, and keep the moments from which others start."""
        self.made.add(batch)
        keys, seeds, rows = list(batch.runs), [r.seed for r in batch.runs.values()], 0
        start = self.model.start(seeds, Sampling(**self.settings))
        self._keep(start, keys, batch.moments)
        for state in self._sample([r.prompt for r in batch.runs.values()], seeds, start):
            here, rows = state.step.index, rows + state.rows
            for i, key in enumerate(keys):
                if here in batch.moments[key]:
                    known = {b: x[i : i + 1].clone() for b, x in state.outputs.items()}
                    self.starts[key, here] = replace(self.starts[key, here], known=known)
            if any(here + 1 in batch.moments[k] for k in keys):
                self._keep(state.sampler_state(), keys, batch.moments)
            if here + 1 >= batch.last and not batch.finished:
                break
        finished = [keys.index(k) for k in batch.finished]
        return state.latents[indices(finished, state.latents.device)], rows

    def _keep(self, moment: SamplerState, keys: Sequence[Key], moments: Mapping[Key, set[int]]) -> None:
        for i, key in enumerate(keys):
            if moment.index in moments[key]:
                self.starts[key, moment.index] = moment.rows([i])

    def _start(self, plain: SweepRun, batch: ChangedBatch) -> SamplerState:
        """Return where a run starts, with the plain run's outputs of the branches that stay as they are."""
        start = self.starts.get((key_of(plain), batch.start))
        if start is None:
            return self.model.start([plain.seed], Sampling(**self.settings))
        return replace(start, known={b: x for b, x in start.known.items() if b in batch.known})

    def _changed(self, batch: ChangedBatch) -> tuple[Tensor, int]:
        for plain in batch.after:
            if plain not in self.made:  # it was kept, but not the moments in it
                self._plain(plain)
        prompts: list[str | Prompt] = [run.prompt for run in batch.beside]
        seeds: list[int] = [run.seed for run in batch.beside]
        starts: list[SamplerState] = [self._start(run, batch) for run in batch.beside]
        interventions: list[Intervention] = []
        firsts: list[int] = []
        for run in batch.runs.values():
            first, size = len(prompts), 1 + len(run.own)
            firsts.append(first)
            prompts += [run.prompt, *run.own]
            seeds += [run.seed] * size
            own = [*range(first, first + size), *range(len(run.beside))]
            for i in run.interventions:
                its = tuple(own if i.when.rows is None else (own[r] for r in i.when.rows))
                interventions.append(replace(i, when=replace(i.when, rows=its)))
            starts += [self._start(run.plain, batch)] * size
        states = self._sample(prompts, seeds, SamplerState.join(starts), interventions)
        state, rows = _last(states)
        return state.latents[indices(firsts, state.latents.device)], rows

    def _sample(
        self,
        prompts: Sequence[str | Prompt],
        seeds: Sequence[int],
        start: SamplerState,
        interventions: Sequence[Intervention] = (),
    ) -> Iterator[State]:
        return self.model.sample(
            prompts, seeds=seeds, start=start, interventions=interventions, **self.settings
        )

    def _done(self, batch: Batch, latents: Tensor, rows: int) -> None:
        keys = batch.finished if isinstance(batch, PlainBatch) else list(batch.runs)
        self.rows += rows
        self.finals.update(zip(keys, latents, strict=True))
        self.report(len(self.finals))


def _last(states: Iterator[State]) -> tuple[State, int]:
    """The last state of a run, and the rows of all."""
    rows = 0
    for state in states:
        rows += state.rows
    return state, rows
