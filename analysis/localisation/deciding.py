"""When is a concept decided? The prompt is switched after k steps, for all k, in both directions.

Insertion gives the prompt without the concept first (PCI, arXiv 2512.08486, has this half alone); removal
gives it first and then takes it away. Runs share prefixes: each plain run gives the states from which one
direction goes on, and an end of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import batches, checked
from ...models.base import Model, Prompt, SamplerState, State
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.branches import settled
from ...models.run.levels import Step
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.run.schedule import remembers
from ...models.store.provenance import provenance
from ..mediation.runs import check_each_once
from ..metrics import Metric, Outcome, measure
from .bootstrap import Array
from .decision import Decision

Cell = tuple[int, int, int]
"""Direction (0 begins without the concept, 1 with it), pair, seed: by their places."""


@checked
def decided(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    without: str | Sequence[str],
    with_: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric | Sequence[Metric],
    concepts: Sequence[str] | None = None,
    stride: int = 1,
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Decision:
    """Switch the prompt after k steps, k = 0 .. T, from without to with and from with to without.

    Only the conditional prompt is switched, with its pooled embedding and mask; the negative stays. Both ends
    of each curve are pure runs. It costs 2 N T (T + 1) rows a pair for N seeds and T guided steps, half
    without guidance; ``stride`` divides that.

    Args:
        model: an opened model.
        without: the prompt without the concept, or one for each pair.
        with_: the prompt with it.
        seeds: each pair is run with each.
        metric: scores finished runs (``analysis.metrics``), whose prompts are those with the concept; one for
            all pairs or one for each.
        concepts: what each pair asks; pairs of one name are averaged into one curve, and intervals are then
            crossed over prompts and seeds. None makes each pair a concept, named by its prompt with it.
        stride: switch after every so many steps alone.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Returns:
        A Decision: curves, times, hysteresis.

    Raises:
        ValueError: for pairs, metrics or seeds that do not fit, and runs that cannot be made.
    """
    pairs = _pairs(without, with_)
    names = [b for _, b in pairs] if concepts is None else list(concepts)
    metrics = [metric] * len(pairs) if callable(metric) else list(metric)
    if not len(names) == len(metrics) == len(pairs):
        raise UsageError(
            f"{len(pairs)} pairs of prompts but {len(metrics)} metrics and {len(names)} concepts; give one "
            "metric for all or one for each pair, and one concept for each pair"
        )
    check_each_once("pairs of prompts", pairs)
    check_each_once("seeds", seeds)
    how = Sampling(**settings)
    if stride < 1 or batch < 1:
        raise UsageError(f"stride is {stride} and batch {batch}; both are 1 or more")
    if not isinstance(how.negative, str):
        raise UsageError(f"negative is {how.negative!r}; all runs share one negative text")
    model = model.sized(how.size)
    steps = model.steps(how)
    switches = sorted({*range(0, len(steps), stride), len(steps)})
    with torch.no_grad():
        text = settled(model, how.text, [t for pair in pairs for t in pair])
        read = [model.encode(list(texts), **text) for texts in zip(*pairs, strict=True)]
        with showing(progress) as show:
            work = _Switching(model, read, list(seeds), switches, batch, settings, show)
            work.run()
    scores, nearness = work.scored(metrics)
    told = [getattr(m, "__name__", repr(m)) for m in metrics]
    about = provenance(model, **how.described(model), metric=list(dict.fromkeys(told)), rows=work.rows)
    about["warning"] = work.warning
    dims = ("direction", "switch", "prompt", "seed")
    data = {"score": (dims, scores), "nearness": (dims, nearness)}
    return Decision(xr.Dataset(data, _coords(steps, switches, pairs, names, seeds), about))


def _coords(
    steps: Sequence[Step],
    switches: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """What the axes of the curves are; the last switch lies after the last noise level."""
    levels, sigmas = [*(s.log_snr for s in steps), np.inf], [*(s.sigma for s in steps), 0.0]
    return {
        "direction": ["insertion", "removal"],
        "switch": list(switches),
        "sigma": ("switch", [sigmas[k] for k in switches]),
        "log_snr": ("switch", [levels[k] for k in switches]),
        "prompt": [b for _, b in pairs],
        "without": ("prompt", [a for a, _ in pairs]),
        "concept": ("prompt", list(names)),
        "seed": list(seeds),
    }


@dataclass
class _Switching:
    """The runs of all pairs, seeds and switches."""

    model: Model
    read: Sequence[Sequence[Prompt]]
    seeds: Sequence[int]
    switches: Sequence[int]
    batch: int
    settings: SamplingOptions
    show: Progress
    rows: int = 0
    warning: str = ""
    states: dict[tuple[Cell, int], SamplerState] = field(default_factory=dict)
    finals: dict[tuple[Cell, int], Tensor] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        """All runs that differ in more than the time of their switch."""
        pairs, seeds = range(len(self.read[0])), range(len(self.seeds))
        return [(d, p, s) for d in (0, 1) for p in pairs for s in seeds]

    def run(self) -> None:
        """Make the plain runs, and go on from their states with the other prompt."""
        last, same = self.switches[-1], [a.digest == b.digest for a, b in zip(*self.read, strict=True)]
        plain = [c for c in self.cells if not (c[0] and same[c[1]])]  # prompts alike: one run is both
        for some in self._batches(plain):
            self._plain(some)
        for _, p, s in self.cells:
            self.finals.setdefault(((1, p, s), last), self.finals[(0, p, s), last])
            for d in (0, 1):  # switched at once: the other's plain run
                self.finals[(d, p, s), 0] = self.finals[(1 - d, p, s), last]
        for k in self.switches[1:-1]:
            cells = [c for c in self.cells if not same[c[1]]]
            for some in self._batches(cells):
                joined = SamplerState.join([self.states.pop((c, k)) for c in some])
                *_, end = self._sample([self.read[1 - d][p] for d, p, _ in some], some, joined)
                self.finals.update({(c, k): x for c, x in zip(some, end.latents, strict=True)})
            for d, p, s in self.cells:
                self.finals.setdefault(((d, p, s), k), self.finals[(0, p, s), last])
            self.show(k, last, "switches")

    def _plain(self, some: Sequence[Cell]) -> None:
        last = self.switches[-1]
        for state in self._sample([self.read[d][p] for d, p, _ in some], some):
            k = state.step.index + 1
            if k in self.switches[1:-1]:
                moment = state.sampler_state()
                self.states.update({(c, k): moment.rows([i]) for i, c in enumerate(some)})
                self.warning = self.warning or _carried(moment)
        self.finals.update({(c, last): x for c, x in zip(some, state.latents, strict=True)})

    def _sample(
        self, prompts: Sequence[Prompt], some: Sequence[Cell], start: SamplerState | None = None
    ) -> Iterator[State]:
        seeds = [self.seeds[s] for *_, s in some]
        for state in self.model.sample(prompts, seeds=seeds, start=start, **self.settings):
            self.rows += state.rows
            yield state

    def _batches(self, cells: Sequence[Cell]) -> Iterator[Sequence[Cell]]:
        for some in batches(len(cells), self.batch):
            yield cells[some]

    def scored(self, metrics: Sequence[Metric]) -> tuple[Array, Array]:
        """Return scores and nearness of all runs, [direction, switch, prompt, seed]."""
        last, n = self.switches[-1], len(self.seeds)
        shape = (2, len(self.switches), len(metrics), n)
        scores, nearness = np.empty(shape), np.empty(shape)
        for p, metric in enumerate(metrics):
            low, high = (torch.stack([self.finals[(d, p, s), last] for s in range(n)]) for d in (0, 1))
            for d, (i, k) in product((0, 1), enumerate(self.switches)):
                x = torch.stack([self.finals[(d, p, s), k] for s in range(n)])
                parts = zip(x.split(self.batch), high.split(self.batch), strict=True)
                outcomes = [Outcome(a, (self.read[1][p],) * len(a), self.model.decode, b) for a, b in parts]
                scores[d, i, p] = torch.cat([measure(metric, o).double().cpu() for o in outcomes])
                nearness[d, i, p] = _nearness(x, low, high).double().cpu()
        return scores, nearness


def _nearness(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share of the way from one end to the other, [sample]; the middle where both ends are one."""
    below, above = ((x - end).flatten(1).norm(dim=1) for end in (low, high))
    return torch.where(below + above > 0, below / (below + above), 0.5)


def _carried(moment: SamplerState) -> str:
    if not remembers(moment.scheduler, moment.latents.shape):
        return ""
    name = type(moment.scheduler).__name__
    return f"{name} carries outputs of the first prompt over the switch: times may be off by some steps"


def _pairs(without: str | Sequence[str], with_: str | Sequence[str]) -> list[tuple[str, str]]:
    a, b = ([x] if isinstance(x, str) else list(x) for x in (without, with_))
    if not a or len(a) != len(b):
        raise UsageError(f"{len(a)} prompts without the concept but {len(b)} with it; give as many of each")
    return list(zip(a, b, strict=True))
