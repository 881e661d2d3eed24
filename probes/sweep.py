"""Many interventions at the price of few: row i of a batch carries intervention i.

A run that first differs from its plain run at step k starts from the plain run's latent at step k; identical
runs are made once. The result always equals one run after another (up to the rounding of batched kernels).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.base import Checkpoint, Model, Prompt, State, check_run
from .intervene import Intervention, intervening

Progress = Callable[[int, int], None]
Key = tuple[object, ...]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
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

    @property
    def start(self) -> int:
        """The first step at which the run may differ from its plain run."""
        return min((min(i.when.steps) if i.when.steps else 0 for i in self.interventions), default=0)


@dataclass(frozen=True, eq=False)
class Swept:
    """What a sweep returns.

    Args:
        latents: final latents of each run, [run, ...].
        rows: how many network rows were computed (a guided step of one sample is two).
    """

    latents: Float[Tensor, "run ..."]
    rows: int


def sweep(
    model: Model,
    runs: Sequence[Run],
    *,
    steps: int,
    guidance: float | None = None,
    negative: str = "",
    batch: int = 16,
    progress: Progress | None = None,
) -> Swept:
    """Make many runs in few batches.

    Args:
        model: an opened model.
        runs: what to run, in any order.
        steps: number of steps.
        guidance: guidance scale; None is the model's default.
        negative: text of the unconditional branch.
        batch: samples in one batch, companions included.
        progress: called with (runs done, runs to make).

    Raises:
        ValueError: for runs that cannot be made, and for interventions that would never act.
        LookupError: for unknown sites.
    """
    if not runs:
        raise ValueError("there is nothing to sweep: runs is empty")
    if batch < 1:
        raise ValueError(f"batch is {batch}; it holds at least 1 sample")
    guidance = model.default_guidance if guidance is None else guidance
    check_run(len(runs), [r.seed for r in runs], steps, guidance)
    encoded = _encode(model, runs)
    n_steps = len(model.steps(steps))
    for run in encoded:
        for i in run.interventions:
            model.place(i.site)
            i.when.check(n_steps, 1 + len(run.companions), guidance > 1 and model.conditional)
    settings = {"steps": steps, "guidance": guidance, "negative": negative}
    work = _Work(model, settings, batch, guidance > 1 and model.conditional)
    if progress:
        total = len({_key(r) for r in encoded})
        work.report = lambda done: progress(done, total)
    return work.make(encoded)


class _Work:
    """The state of one sweep: what is done, and what it cost."""

    def __init__(self, model: Model, settings: dict[str, Any], batch: int, doubled: bool) -> None:
        self.model, self.settings, self.batch, self.doubled = model, settings, batch, doubled
        self.rows = 0
        self.finals: dict[Key, Tensor] = {}
        self.starts: dict[tuple[Key, int], Checkpoint] = {}
        self.report: Callable[[int], None] = lambda _: None

    def make(self, runs: Sequence[Run]) -> Swept:
        unique = {_key(r): r for r in runs}
        changed = {k: r for k, r in unique.items() if r.interventions}
        with torch.no_grad():
            self._plain(unique)
            by_start: dict[int, dict[Key, Run]] = defaultdict(dict)
            for key, run in changed.items():
                by_start[run.start][key] = run
            for start, group in sorted(by_start.items()):
                for chunk in _chunks(group.items(), self.batch, lambda kr: 1 + len(kr[1].companions)):
                    self._changed(dict(chunk), start)
        return Swept(torch.stack([self.finals[_key(r)] for r in runs]), self.rows)

    def _plain(self, unique: dict[Key, Run]) -> None:
        """Make the runs nothing is done to, and keep the moments from which others start."""
        moments: dict[Key, set[int]] = defaultdict(set)
        plain: dict[Key, Run] = {}
        for run in unique.values():
            base = Run(run.prompt, run.seed)
            if not run.interventions or run.start > 0:
                plain[_key(base)] = base
            if run.start > 0:
                moments[_key(base)].add(run.start)
        for chunk in _chunks(plain.items(), self.batch, lambda _: 1):
            keys, group = [k for k, _ in chunk], [r for _, r in chunk]
            last = max((max(moments[k], default=0) for k in keys), default=0)
            finished = [k for k in keys if k in unique]
            for state in self._sample([r.prompt for r in group], [r.seed for r in group]):
                now = state.step.index + 1
                wanted = [(i, k) for i, k in enumerate(keys) if now in moments[k]]
                if wanted:
                    checkpoint = state.checkpoint()
                    self.starts.update({(k, now): checkpoint.rows([i]) for i, k in wanted})
                if now >= last and not finished:
                    break
            self._done({k: state.latents[keys.index(k)] for k in finished})

    def _changed(self, runs: dict[Key, Run], start: int) -> None:
        prompts: list[str | Prompt] = []
        seeds: list[int] = []
        starts: list[Checkpoint] = []
        interventions: list[Intervention] = []
        firsts: dict[Key, int] = {}
        for key, run in runs.items():
            first, size = len(prompts), 1 + len(run.companions)
            firsts[key] = first
            prompts += [run.prompt, *run.companions]
            seeds += [run.seed] * size
            for i in run.interventions:
                rows = tuple(first + r for r in (range(size) if i.when.rows is None else i.when.rows))
                interventions.append(replace(i, when=replace(i.when, rows=rows)))
            if start:
                starts += [self.starts[_key(Run(run.prompt, run.seed)), start]] * size
        with intervening(self.model, *interventions):
            begin = Checkpoint.join(starts) if start else None
            *_, state = self._sample(prompts, seeds, begin)
        self._done({k: state.latents[i] for k, i in firsts.items()})

    def _sample(
        self, prompts: Sequence[str | Prompt], seeds: Sequence[int], start: Checkpoint | None = None
    ) -> Iterator[State]:
        for state in self.model.sample(prompts, seeds=seeds, start=start, **self.settings):
            self.rows += (2 if self.doubled else 1) * len(seeds)
            yield state

    def _done(self, finals: dict[Key, Tensor]) -> None:
        self.finals.update(finals)
        self.report(len(self.finals))


def _encode(model: Model, runs: Sequence[Run]) -> list[Run]:
    texts = list(dict.fromkeys(p for r in runs for p in (r.prompt, *r.companions) if isinstance(p, str)))
    known = dict(zip(texts, model.encode(texts), strict=True)) if texts else {}

    def told(p: str | Prompt) -> Prompt:
        return known[p] if isinstance(p, str) else p

    return [replace(r, prompt=told(r.prompt), companions=tuple(map(told, r.companions))) for r in runs]


def _key(run: Run) -> Key:
    """Runs of equal key give equal pictures: same embeddings to the bit, seed and interventions."""
    done = tuple((i.site, str(i.when), id(i.fn)) for i in run.interventions)
    return (run.seed, tuple(_digest(p) for p in (run.prompt, *run.companions)), done)


def _digest(prompt: str | Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    parts = [t for t in (prompt.embeds, prompt.pooled) if t is not None]
    data = b"".join(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for t in parts)
    return hashlib.sha256(data).hexdigest()


def _chunks(items: Iterable[T], size: int, weigh: Callable[[T], int]) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        if chunk and sum(map(weigh, chunk)) + weigh(item) > size:
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk
