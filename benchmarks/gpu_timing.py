"""Time and memory of tracing, causal maps and sweeps of one opened model, for ``gpu.py``.

Time is wall time, waited for on a GPU. Memory is the most that torch had allocated meanwhile; on a CPU, the
most that the process has held so far. Each is given the seconds that it should take, about.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import measure
import torch
from families import watched
from torch import Tensor

import denoscope
from denoscope.analysis import Swap, metrics, plan_study, rows_per_second, trace_denoiser
from denoscope.probes.intervene import scale

PROMPT, WORD, OTHER = "a cat", "cat", "dog"
STEPS, ROUNDS = 20, 5
BATCHES = (16, 4, 1)  # of a causal map: the first that fits the memory
SWEPT = 2  # steps of a sweep whose batch grows
MOST = 8192  # samples in a batch
KINDS = ("cross_attn.out", "joint_attn.out", "attn_mlp.out")
Found = dict[str, Any]
Part = tuple[Sequence[denoscope.Site], Sequence[int]]
T = TypeVar("T")


@dataclass(frozen=True)
class Took(Generic[T]):
    """What a call took, and what it made: seconds, and the most bytes meanwhile."""

    seconds: float
    peak: float
    made: T


def wait(model: denoscope.Model) -> None:
    """Let the GPU come to an end."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def took(model: denoscope.Model, run: Callable[[], T]) -> Took[T]:
    """Call, and look at clock and memory."""
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    wait(model)
    start = time.perf_counter()
    made = run()
    wait(model)
    seconds = time.perf_counter() - start
    return Took(seconds, float(torch.cuda.max_memory_allocated()) if on_gpu else measure.peak(), made)


def freed() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def plain(model: denoscope.Model, steps: int | None = None) -> Tensor:
    """Sampling and nothing else; its final latents."""
    with torch.no_grad():
        *_, state = model.sample([PROMPT], seeds=[0], steps=steps or STEPS)
    return state.latents


def traced(
    model: denoscope.Model, sites: Sequence[denoscope.Site], steps: int | None = None
) -> denoscope.Trace:
    """The same, keeping what passes through some sites."""
    return denoscope.trace(model, [PROMPT], seeds=[0], steps=steps or STEPS, sites=sites)


def crossing(model: denoscope.Model) -> list[denoscope.Site]:
    """All outputs of the denoiser's attention that reads the text; in Flux's single blocks with the MLP's."""
    return [s for s in model.sites(f"{model.input_site.component}/**") if s.kind in KINDS]


def spread(things: Sequence[Any], n: int) -> list[Any]:
    """So many of them, evenly; all where there are fewer."""
    n = min(n, len(things))
    return [things[i * (len(things) - 1) // max(1, n - 1)] for i in range(n)]


def tracing(model: denoscope.Model, seconds: float) -> Found:
    """Trace 16 sites, against sampling alone."""
    sites = watched(model)
    first = took(model, lambda: traced(model, sites))
    found = {"sites": len(sites), "first": first.seconds, "kept": first.made.nbytes}
    latents = first.made.latents
    alone = took(model, lambda: plain(model))
    watching = took(model, lambda: traced(model, sites).nbytes)  # which is all that is held of it
    found |= {"equal": torch.equal(latents, alone.made), "finite": bool(latents.isfinite().all())}
    found |= {"peak_plain": alone.peak, "peak_traced": watching.peak}
    left = seconds - first.seconds - alone.seconds - watching.seconds
    pair = measure.race(
        lambda: traced(model, sites),
        lambda: plain(model),
        rounds=max(1, min(ROUNDS, int(left / (alone.seconds + watching.seconds)))),
        warm=False,
        clock=lambda run: took(model, run).seconds,
    )
    found["traced"], found["plain"] = pair.seconds
    return {**found, "ratio": pair.ratio, "rounds": len(pair.ours)}


def causal_map(model: denoscope.Model, seconds: float) -> Found:
    """A causal map of each site and step, or as much of it as time allows; rows of all of it are counted."""
    for batch in BATCHES[:-1]:
        try:
            return _mapped(model, batch, seconds)
        except torch.OutOfMemoryError:
            pass
        freed()  # when the error, which holds what it was made of, is gone
    return _mapped(model, BATCHES[-1], seconds)


def _mapped(model: denoscope.Model, batch: int, seconds: float) -> Found:
    sites, steps = crossing(model), list(range(STEPS))
    call: Found = {"seeds": [0], "metric": metrics.latent_distance(), "corruption": Swap(OTHER)}

    def of(part: Part) -> Found:
        return {**call, "steps": STEPS, "batch": batch, "sites": part[0], "windows": [[s] for s in part[1]]}

    def planned(part: Part) -> Any:
        return plan_study(trace_denoiser, model, [PROMPT], WORD, **of(part))

    pace, part, whole = rows_per_second(model, samples=4, prompt=PROMPT, steps=1), (sites, steps), None
    for part in parts(sites, steps):
        plan = planned(part)
        whole = whole or plan
        if plan.seconds(pace) <= seconds:
            break
    run = took(model, lambda: trace_denoiser(model, [PROMPT], WORD, **of(part)).data.attrs)
    if run.made["rows"] != plan.rows or not plan.exact:
        raise RuntimeError(f"{run.made['rows']} rows were made, but {plan.rows} were counted before")
    return {
        **{"rows": whole.rows, "published": whole.reference_rows, "measured": plan.rows, "batch": batch},
        **{"seconds": run.seconds, "peak": run.peak, "sites": len(sites), "steps": len(steps)},
        **{"part": [len(part[0]), len(part[1])], "clean_run": run.made.get("clean_run", "kept")},
    }


def parts(sites: Sequence[denoscope.Site], steps: Sequence[int]) -> Iterator[Part]:
    """All of it, then less and less: first of the sites, then of the steps."""
    n, k = len(sites), len(steps) // 2
    while n:
        yield spread(sites, n), steps
        n //= 2
    while k:
        yield sites[:1], spread(steps, k)
        k //= 2


def published(model: denoscope.Model, seconds: float) -> Found:
    """The published scheme: clean, corrupted and restored run anew for each site and step, one by one."""
    places = [(site, step) for site in crossing(model) for step in range(STEPS)]
    random.Random(0).shuffle(places)  # those that there is time for are of the whole network
    plain(model, 1)
    spent, peak, rows, units = 0.0, 0.0, 0, 0
    for site, step in places:
        run = took(model, lambda s=site, i=step: restored(model, s, i)[1])  # type: ignore[misc]
        spent, peak, rows, units = spent + run.seconds, max(peak, run.peak), rows + run.made, units + 1
        if spent + run.seconds > seconds:
            break
    whole = rows // units * len(places)
    return {"seconds": spent, "peak": peak, "measured": rows, "rows": whole, "units": units}


def restored(model: denoscope.Model, site: denoscope.Site, step: int) -> tuple[Tensor, int]:
    """Final latents [clean, corrupted, restored at one site and step], and the rows that they took."""
    clean, corrupted = model.encode([PROMPT, PROMPT.replace(WORD, OTHER)])
    when = denoscope.When(steps=(step,), rows=(0, 2))
    copy = denoscope.Intervention(site, lambda x, _: torch.cat([x[:1], x[:1]]), when)
    rows = 0
    with torch.no_grad():
        prompts, seeds = [clean, corrupted, corrupted], [0, 0, 0]
        for state in model.sample(prompts, seeds=seeds, steps=STEPS, interventions=[copy]):
            rows += state.rows
    return state.latents, rows


def sweeping(model: denoscope.Model, seconds: float) -> Found:
    """Rows a second of a sweep, its batch growing until the memory or the time ends."""
    site, (prompt,) = crossing(model)[0], model.encode([PROMPT])

    def run(batch: int) -> int:
        runs = [denoscope.SweepRun(prompt, i, (scale(site, 2.0),)) for i in range(batch)]
        return denoscope.sweep(model, runs, steps=SWEPT, batch=batch).rows

    run(1)  # kernels are chosen
    found, batch, spent, ended = list[Found](), 1, 0.0, ""
    while not ended:
        freed()
        try:
            one = took(model, lambda b=batch: run(b))  # type: ignore[misc]
        except torch.OutOfMemoryError:
            ended = f"of memory, at {batch}"
            continue
        found.append({"batch": batch, "pace": one.made / one.seconds, "peak": one.peak})
        spent, batch = spent + one.seconds, 2 * batch
        if batch > MOST or spent + 2 * one.seconds > seconds:
            ended = f"of the time for it, before {batch}"
    freed()
    return {"batches": found, "ended": ended}
