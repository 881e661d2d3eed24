"""Into which batches the runs of a sweep are put: known before anything runs, whatever is there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from torch import Tensor

from ...models.arguments import check_fields
from ...models.base import Prompt
from ..intervene import Intervention

Key: TypeAlias = tuple[object, ...]
Known: TypeAlias = tuple[str, ...]
Finished: TypeAlias = tuple[Tensor, int]
"""Final latents of a batch, [run, ...], and the network rows that it took."""
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
        shared: the companions are runs of their own, to which nothing is done: one row of a batch, for all of
            its runs. Interventions leave ``x[1:]`` as it is. Else each run has companions of its own, which
            start where it starts.
    """

    prompt: str | Prompt
    seed: int
    interventions: tuple[Intervention, ...] = ()
    companions: tuple[str | Prompt, ...] = ()
    shared: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def start(self) -> int:
        """The first step at which the run may differ from its plain run."""
        return min((min(i.when.steps) if i.when.steps else 0 for i in self.interventions), default=0)

    @property
    def plain(self) -> SweepRun:
        """The run with nothing done to it."""
        return SweepRun(self.prompt, self.seed)

    @property
    def beside(self) -> tuple[SweepRun, ...]:
        """The plain runs that run beside it and others, if its companions are shared."""
        return tuple(SweepRun(c, self.seed) for c in self.companions) if self.shared else ()

    @property
    def own(self) -> tuple[str | Prompt, ...]:
        """The companions that are its own."""
        return () if self.shared else self.companions


@dataclass(frozen=True, eq=False)
class PlainBatch:
    """Runs nothing is done to.

    Args:
        runs: in order.
        moments: of each, the steps from which others start.
        finished: those whose latents are asked for; without any, the batch ends at its last moment.
    """

    runs: Mapping[Key, SweepRun]
    moments: Mapping[Key, set[int]]
    finished: Sequence[Key]

    @property
    def last(self) -> int:
        """The last moment from which another run starts."""
        return max(max(self.moments[k], default=0) for k in self.runs)

    @property
    def samples(self) -> int:
        """How many are in it."""
        return len(self.runs)

    def rows(self, branches: int, steps: int) -> int:
        """Return how many network rows it takes, if every branch is computed at every step."""
        return self.samples * branches * (steps if self.finished else self.last)

    @property
    def kept(self) -> int:
        """Of how many runs a store keeps the latents."""
        return len(self.finished)


@dataclass(frozen=True, eq=False)
class ChangedBatch:
    """Runs with interventions that start together.

    Args:
        runs: in order.
        start: their first step.
        known: the branches whose outputs there are those of the plain runs.
        after: the batches of plain runs that they start from.
        beside: plain runs that run beside all of them, each one row.
    """

    runs: Mapping[Key, SweepRun]
    start: int
    known: Known
    after: Sequence[PlainBatch]
    beside: Sequence[SweepRun] = ()

    @property
    def samples(self) -> int:
        """How many are in it, companions included."""
        return len(self.beside) + sum(1 + len(run.own) for run in self.runs.values())

    def rows(self, branches: int, steps: int) -> int:
        """Return how many network rows it takes, if every branch is computed at every step."""
        return self.samples * (branches * (steps - self.start) - len(self.known))

    @property
    def kept(self) -> int:
        """Of how many runs a store keeps the latents."""
        return len(self.runs)


Batch: TypeAlias = PlainBatch | ChangedBatch
Timed: TypeAlias = tuple[Batch, Finished, float]
"""A batch, what it came to, and the seconds that it took."""


def partition(
    runs: Sequence[SweepRun], batch: int, branches: Sequence[str]
) -> tuple[list[PlainBatch], list[ChangedBatch]]:
    """Return the batches of a sweep; runs that are the same are made once.

    Args:
        runs: with encoded prompts.
        batch: samples in one, companions included.
        branches: of the guidance.
    """
    unique = {key_of(r): r for r in runs}
    plain = _plain(unique, batch)
    home = {key: one for one in plain for key in one.runs}
    groups: dict[tuple[int, Known, tuple[Key, ...]], dict[Key, SweepRun]] = defaultdict(dict)
    for key, run in unique.items():
        if run.interventions:
            plainly = [home.get(key_of(one)) for one in (run.plain, *run.beside)]
            beside = tuple(map(key_of, run.beside))
            groups[run.start, _known(run, plainly, branches), beside][key] = run
    changed = []
    for (start, known, beside), group in sorted(groups.items()):
        left = max(1, batch - len(beside))
        for chunk in _chunks(group.items(), left, lambda kr: 1 + len(kr[1].own)):
            together = chunk[0][1].beside
            needed = [key_of(one) for one in (*(r.plain for _, r in chunk), *together)]
            after = dict.fromkeys(home[key] for key in needed if key in home)
            changed.append(ChangedBatch(dict(chunk), start, known, list(after), together))
    return plain, changed


def key_of(run: SweepRun) -> Key:
    """Runs of equal key give equal pictures: same embeddings to the bit, seed and interventions."""
    done = tuple(i.key for i in run.interventions)
    reads = tuple(p if isinstance(p, str) else p.digest for p in (run.prompt, *run.companions))
    return (run.seed, reads, done, run.shared)


def _plain(unique: Mapping[Key, SweepRun], batch: int) -> list[PlainBatch]:
    moments: dict[Key, set[int]] = defaultdict(set)
    plain: dict[Key, SweepRun] = {}
    for run in unique.values():
        key = key_of(run.plain)
        if not run.interventions or run.start > 0:
            plain[key] = run.plain
        moments[key].add(run.start)
        for beside in run.beside:
            if run.start > 0:
                plain[key_of(beside)] = beside
            moments[key_of(beside)].add(run.start)
    return [
        PlainBatch(dict(chunk), {k: moments[k] for k, _ in chunk}, [k for k, _ in chunk if k in unique])
        for chunk in _chunks(plain.items(), batch, lambda _: 1)
    ]


def _known(run: SweepRun, plainly: Sequence[PlainBatch | None], branches: Sequence[str]) -> Known:
    """The branches that stay as they are where a run starts, if all plain runs of it make that step."""
    touched = {i.when.branch for i in run.interventions}
    made = all(plain is not None and (plain.finished or run.start < plain.last) for plain in plainly)
    if not made or None in touched:
        return ()
    return tuple(sorted(set(branches) - touched))


def _chunks(items: Iterable[T], size: int, weigh: Callable[[T], int]) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        if chunk and sum(map(weigh, chunk)) + weigh(item) > size:
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk
