"""How a sweep is batched: plain runs first, then the changed ones from where they begin to differ.

A run that first differs from its plain run at step k starts from the plain run's latent at step k, and takes
over its unconditional output there. Rows of one batch are independent, so this changes nothing but the cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from ...models.arguments import check_fields
from ...models.base import Model, Prompt, SamplerState, State
from ...models.run.sampling import Sampling, SamplingOptions
from ..intervene import Intervention

Key: TypeAlias = tuple[object, ...]
Known: TypeAlias = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One sampling run of a sweep.

    Args:
        prompt: what is generated, a text or an encoded Prompt.
        seed: its starting noise.
        interventions: what is changed on the way. They see all rows of the run: ``x[0]`` is the run itself,
            ``x[1:]`` are its companions.
        companions: prompts that run beside it from the same starting noise, to be copied from.
    """

    prompt: str | Prompt
    seed: int
    interventions: tuple[Intervention, ...] = ()
    companions: tuple[str | Prompt, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def start(self) -> int:
        """The first step at which the run may differ from its plain run."""
        return min((min(i.when.steps) if i.when.steps else 0 for i in self.interventions), default=0)


class SweepExecutor:
    """The state of one sweep: what is done, and what it cost in network rows."""

    def __init__(self, model: Model, settings: SamplingOptions, batch: int) -> None:
        self.model, self.settings, self.batch = model, settings, batch
        self.branches = model.branch_names(settings.get("guidance"))
        self.rows = 0
        self.finals: dict[Key, Tensor] = {}
        self.starts: dict[tuple[Key, int], SamplerState] = {}
        self.report: Callable[[int], None] = lambda _: None

    def make(self, runs: Sequence[SweepRun]) -> Tensor:
        """Return the final latents of each run, [run, ...]."""
        unique = {key_of(r): r for r in runs}
        changed = {k: r for k, r in unique.items() if r.interventions}
        with torch.no_grad():
            self._plain(unique)
            groups: dict[tuple[int, Known], dict[Key, tuple[SweepRun, SamplerState]]] = defaultdict(dict)
            for key, run in changed.items():
                start = self._start(run)
                groups[run.start, tuple(sorted(start.known))][key] = run, start
            for _, group in sorted(groups.items()):
                for chunk in _chunks(group.items(), self.batch, lambda kr: 1 + len(kr[1][0].companions)):
                    self._changed(dict(chunk))
        return torch.stack([self.finals[key_of(r)] for r in runs])

    def _plain(self, unique: dict[Key, SweepRun]) -> None:
        """Make the runs nothing is done to, and keep the moments from which others start."""
        moments: dict[Key, set[int]] = defaultdict(set)
        plain: dict[Key, SweepRun] = {}
        for run in unique.values():
            base = SweepRun(run.prompt, run.seed)
            if not run.interventions or run.start > 0:
                plain[key_of(base)] = base
            moments[key_of(base)].add(run.start)
        for chunk in _chunks(plain.items(), self.batch, lambda _: 1):
            self._plain_batch(dict(chunk), moments, [k for k, _ in chunk if k in unique])

    def _plain_batch(
        self, runs: Mapping[Key, SweepRun], moments: Mapping[Key, set[int]], finished: Sequence[Key]
    ) -> None:
        keys, seeds = list(runs), [r.seed for r in runs.values()]
        last = max(max(moments[k], default=0) for k in keys)
        start = self.model.start(seeds, Sampling(**self.settings))
        self._keep(start, keys, moments)
        for state in self._sample([r.prompt for r in runs.values()], seeds, start):
            here = state.step.index
            for i, key in enumerate(keys):
                if here in moments[key]:
                    known = {b: x[[i]] for b, x in state.outputs.items()}
                    self.starts[key, here] = replace(self.starts[key, here], known=known)
            if any(here + 1 in moments[k] for k in keys):
                self._keep(state.sampler_state(), keys, moments)
            if here + 1 >= last and not finished:
                break
        self._done({k: state.latents[keys.index(k)] for k in finished})

    def _keep(self, moment: SamplerState, keys: Sequence[Key], moments: Mapping[Key, set[int]]) -> None:
        for i, key in enumerate(keys):
            if moment.index in moments[key]:
                self.starts[key, moment.index] = moment.rows([i])

    def _start(self, run: SweepRun) -> SamplerState:
        """Return where a run starts, with the plain run's outputs of the branches that stay as they are."""
        start = self.starts.get((key_of(SweepRun(run.prompt, run.seed)), run.start))
        if start is None:
            return self.model.start([run.seed], Sampling(**self.settings))
        touched = {i.when.branch for i in run.interventions}
        spared = () if None in touched else set(start.known) - touched
        return replace(start, known={b: start.known[b] for b in self.branches if b in spared})

    def _changed(self, runs: dict[Key, tuple[SweepRun, SamplerState]]) -> None:
        prompts: list[str | Prompt] = []
        seeds: list[int] = []
        starts: list[SamplerState] = []
        interventions: list[Intervention] = []
        firsts: dict[Key, int] = {}
        for key, (run, start) in runs.items():
            first, size = len(prompts), 1 + len(run.companions)
            firsts[key] = first
            prompts += [run.prompt, *run.companions]
            seeds += [run.seed] * size
            for i in run.interventions:
                rows = tuple(first + r for r in (range(size) if i.when.rows is None else i.when.rows))
                interventions.append(replace(i, when=replace(i.when, rows=rows)))
            starts += [start] * size
        *_, state = self._sample(prompts, seeds, SamplerState.join(starts), interventions)
        self._done({k: state.latents[i] for k, i in firsts.items()})

    def _sample(
        self,
        prompts: Sequence[str | Prompt],
        seeds: Sequence[int],
        start: SamplerState,
        interventions: Sequence[Intervention] = (),
    ) -> Iterator[State]:
        run = self.model.sample(
            prompts, seeds=seeds, start=start, interventions=interventions, **self.settings
        )
        for state in run:
            self.rows += state.rows
            yield state

    def _done(self, finals: dict[Key, Tensor]) -> None:
        self.finals.update(finals)
        self.report(len(self.finals))


def key_of(run: SweepRun) -> Key:
    """Runs of equal key give equal pictures: same embeddings to the bit, seed and interventions."""
    done = tuple(i.key for i in run.interventions)
    return (
        run.seed,
        tuple(p if isinstance(p, str) else p.digest for p in (run.prompt, *run.companions)),
        done,
    )


def _chunks(items: Iterable[T], size: int, weigh: Callable[[T], int]) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        if chunk and sum(map(weigh, chunk)) + weigh(item) > size:
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk
