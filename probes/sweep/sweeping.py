"""Many interventions at the price of few: row i of a batch carries intervention i.

A run starts where it first differs from its plain run, and identical runs are made once (``partition.py``).
The result always equals one run after another, up to the rounding of batched kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.html import Brief
from ...models.progress import Progress, showing
from ...models.run.branches import settled
from ...models.run.context import TEXT
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.identity import identity
from ...models.store.study import Study, studying
from .batching import Memory, SweepExecutor
from .keeping import Keeper, texts_of
from .partition import SweepRun, key_of, partition

__all__ = ["Progress", "SweepRun", "Swept", "sweep"]


@dataclass(frozen=True, eq=False, repr=False)
class Swept(Brief):
    """What a sweep returns.

    Args:
        latents: final latents of each run, [run, ...].
        rows: how many network rows were computed (a guided step of one sample is two).
    """

    latents: Float[Tensor, "run ..."]
    rows: int


@checked
def sweep(
    model: Model,
    runs: Sequence[SweepRun],
    *,
    batch: int = 16,
    store: str | Path | Study | None = None,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Swept:
    """Make many runs in few batches.

    Args:
        model: an opened model.
        runs: what to run, in any order.
        batch: samples in one batch, companions included.
        store: a folder; batches that are in it are not made again, so a call that was stopped goes on
            (docs/studies.md).
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative (one for all), size.

    Raises:
        ValueError: for runs that cannot be made, and for interventions that would never act; with a store,
            for interventions without a spec.
        LookupError: for unknown sites.
        RuntimeError: for a store of another model or other settings, or that another process writes.
    """
    if not runs:
        raise UsageError("there is nothing to sweep: runs is empty")
    if batch < 1:
        raise UsageError(f"batch is {batch}; it holds at least 1 sample")
    how = Sampling(**settings)
    if not isinstance(how.negative, str):
        raise UsageError(f"negative is {how.negative!r}; the runs of a sweep share one negative text")
    model = model.sized(how.size)
    branches, n_steps = model.branch_names(how.guidance), len(model.steps(how))
    for run in runs:
        for i in run.interventions:
            if i.site.component.startswith(TEXT):
                raise UsageError(
                    f"{i.site} is in a text encoder, which a sweep runs once for all; change the Prompt, or "
                    "use denoscope.trace(interventions=[...])"
                )
            i.when.check(n_steps, 1 + len(run.companions), branches)
    model.places_of(dict.fromkeys(i.site for run in runs for i in run.interventions))
    encoded = _encode(model, runs, how)
    total = len({key_of(r) for r in encoded})
    with showing(progress) as show, _memory(store, model, how, batch, runs, encoded) as memory:
        work = SweepExecutor(model, settings, batch, memory)
        work.report = lambda done: show(done, total, "runs")
        return Swept(work.make(encoded), work.rows)


@contextmanager
def _memory(  # noqa: PLR0917  # one sweep
    store: str | Path | Study | None,
    model: Model,
    how: Sampling,
    batch: int,
    runs: Sequence[SweepRun],
    encoded: Sequence[SweepRun],
) -> Iterator[Memory]:
    """Give what remembers batches: a store, or nothing."""
    if store is None:
        yield Memory()
        return
    base = identity(model, how, batch)
    keeper = Keeper(model, base, texts_of(runs, encoded))
    keys = keeper.keys(partition(encoded, batch, model.branch_names(how.guidance)))
    about = {"runs": len(runs), "batches": len(keys)}
    with studying(store, base, "sweep", {"units": keys}, units=len(keys), about=about) as keeper.study:
        yield keeper


def _negative(how: Sampling) -> list[str]:
    return [how.negative] if isinstance(how.negative, str) else []


def _encode(model: Model, runs: Sequence[SweepRun], how: Sampling) -> list[SweepRun]:
    texts = list(dict.fromkeys(p for r in runs for p in (r.prompt, *r.companions) if isinstance(p, str)))
    read = settled(model, how.text, [*(p for r in runs for p in (r.prompt, *r.companions)), *_negative(how)])
    known = dict(zip(texts, model.encode(texts, **read), strict=True)) if texts else {}

    def told(p: str | Prompt) -> Prompt:
        return known[p] if isinstance(p, str) else p

    return [replace(r, prompt=told(r.prompt), companions=tuple(map(told, r.companions))) for r in runs]
