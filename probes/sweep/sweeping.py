"""Many interventions at the price of few: row i of a batch carries intervention i.

A run starts where it first differs from its plain run, and identical runs are made once (``batching.py``).
The result always equals one run after another, up to the rounding of batched kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt, check_run
from .batching import Run, Work, key_of

Progress = Callable[[int, int], None]
__all__ = ["Progress", "Run", "Swept", "sweep"]


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
            i.when.check(n_steps, 1 + len(run.companions), model.guides(guidance))
    settings = {"steps": steps, "guidance": guidance, "negative": negative}
    work = Work(model, settings, batch, model.guides(guidance))
    if progress:
        total = len({key_of(r) for r in encoded})
        work.report = lambda done: progress(done, total)
    return Swept(work.make(encoded), work.rows)


def _encode(model: Model, runs: Sequence[Run]) -> list[Run]:
    texts = list(dict.fromkeys(p for r in runs for p in (r.prompt, *r.companions) if isinstance(p, str)))
    known = dict(zip(texts, model.encode(texts), strict=True)) if texts else {}

    def told(p: str | Prompt) -> Prompt:
        return known[p] if isinstance(p, str) else p

    return [replace(r, prompt=told(r.prompt), companions=tuple(map(told, r.companions))) for r in runs]
