"""Large causal maps: the clean run kept and in lock-step; sweeps on the workers of a Ray cluster.

``python benchmarks/devices.py`` measures all, with ``lockstep`` or ``ray`` one of them; docs/studies.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any
from unittest import mock

import pages
import torch
from measure import peak

import denoscope
from denoscope.analysis import Swap, metrics, plan_study, trace_denoiser
from denoscope.analysis.mediation.choice import denoiser_sites
from denoscope.investigation.planning import unweighed
from denoscope.models.run.cost import row_cost
from denoscope.models.sites import site_shapes
from denoscope.models.synthetic.sizes import full_size
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import scale
from denoscope.probes.sweep.batching import Memory
from denoscope.probes.sweep.sweeping import SweepRun, sweep

PAGE = "docs/studies.md"
PROMPT, WORD = "a noto emoji of a dog", "dog"
STEPS, FULL = 20, ("sd-1.5", 50)
RUNS, ROUNDS, SMALL = 32, 3, 200
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""With it glibc gives freed memory back at once; else what it holds differs from run to run."""
SITE = "unet/mid.attn.0.0/mlp.out"


def lockstep() -> None:
    """What is kept at full size, by arithmetic; what both ways take on the embedded model."""
    names = {
        "bare": "a bare batch of 16",
        "stored": "all sites, clean run kept",
        "lockstep": "all sites, in lock-step",
    }
    name, steps = FULL
    model = full_size(name)
    sites, shapes = denoiser_sites(model, None), site_shapes(model)
    row = {site: prod(shapes[site]) * 2 for site in sites}
    kept, most = sum(row.values()) * steps, max(row.values())
    live, counted = row_cost(unweighed(name)).live, 2 * 16 * row_cost(denoscope.load("emoji")).live
    told = (
        f"At the size of {name} in half precision, {len(sites)} sites and {steps} steps are "
        f"{kept / 1e9:.2f} GB for each run that is kept (with `direct=True`, one more for each draw). In "
        f"lock-step one site of one batch is copied at a time: at most {most / 1e6:.1f} MB a row, beside the "
        f"{live / 1e6:.0f} MB that a row has alive (+{most / live:.1%}). On the embedded model, "
        f"{STEPS} steps, batches of 16, one thread, each in a process of its own. For the peak they give "
        f"memory back at once (the rows alone are counted as {counted / 1e6:.0f} MB); not for the time:"
    )
    ways = {way: {**child(way), "peak": child(way, GIVES_BACK)["peak"]} for way in names}
    cells = [
        (
            names[way],
            f"{v['peak'] / 1e6:.0f} MB",
            f"{v['kept'] / 1e6:.1f} MB",
            f"{v['rows']:.0f}",
            f"{v['seconds']:.1f} s",
        )
        for way, v in ways.items()
    ]
    header = ("", "peak above the opened model", "activations kept", "rows", "CPU time")
    pages.write(PAGE, "lockstep", f"{told}\n\n{pages.table(header, cells)}")


def way(name: str) -> dict[str, float]:
    """One way in this process."""
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    sweep(model, [SweepRun(PROMPT, 0)], steps=1)
    call: dict[str, Any] = {
        "seeds": [0],
        "metric": metrics.latent_distance(),
        "corruption": Swap("cat"),
        "steps": STEPS,
    }
    call |= {"memory": 0} if name == "lockstep" else {}
    kept = 0 if name == "bare" else plan_study(trace_denoiser, model, [PROMPT], WORD, **call).kept
    before, start = peak(), time.process_time()
    if name == "bare":
        rows = sweep(model, [SweepRun(PROMPT, i) for i in range(16)], steps=STEPS).rows
    else:
        rows = trace_denoiser(model, [PROMPT], WORD, **call).rows
    return {"peak": peak() - before, "kept": kept, "rows": rows, "seconds": time.process_time() - start}


def child(name: str, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, float]:
    """One way in a fresh process; ``more`` stands in its environment."""
    command = [sys.executable, __file__, "--way", name]
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def wall(make: Callable[[], Any], rounds: int) -> float:
    """Least seconds of some rounds."""
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        make()
        took.append(time.perf_counter() - start)
    return min(took)


def ray() -> None:
    """Two workers of one thread against one process of two; and what a batch costs beside its work."""
    model = denoscope.load("emoji")
    runs = [SweepRun(PROMPT, i, (scale(SITE, 2.0),)) for i in range(RUNS)]
    torch.set_num_threads(2)
    alone = wall(lambda: sweep(model, runs, steps=STEPS, batch=8), ROUNDS)
    torch.set_num_threads(1)
    one = wall(lambda: sweep(model, runs, steps=STEPS, batch=8), ROUNDS)
    start = time.perf_counter()
    with denoscope.on_ray():
        sweep(model, runs[:2], steps=1, batch=1)
        began = time.perf_counter() - start
        spread = wall(lambda: sweep(model, runs, steps=STEPS, batch=8), ROUNDS)
        extra = _overhead()
    cells = [
        ("one process, one thread", f"{one:.1f} s"),
        ("one process, two threads", f"{alone:.1f} s"),
        ("two workers of one thread", f"{spread:.1f} s"),
        ("until two workers have opened the model", f"{began:.1f} s"),
        ("a batch beside its own work", f"{1e3 * extra:.1f} ms"),
    ]
    header = (f"{RUNS} runs of the embedded model, {STEPS} steps, batches of 8, on 2 cores", "wall time")
    pages.write(PAGE, "ray", pages.table(header, cells))


def _overhead() -> float:
    """Seconds of two workers that are no work, for each of many small batches."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_sd().save_pretrained(folder)
        small = denoscope.load(folder)
        runs = [SweepRun("a cat", i, (scale(SITE, 2.0),)) for i in range(SMALL)]
        spent = list[float]()

        def keep(_: Memory, __: Any, made: Any, seconds: float) -> Any:
            spent.append(seconds)
            return made

        sweep(small, runs[:2], steps=1, batch=1)
        with mock.patch.object(Memory, "keep", keep):
            took = wall(lambda: sweep(small, runs, steps=1, batch=1), 1)
    return (2 * took - sum(spent)) / len(spent)


def main(names: Sequence[str]) -> None:
    """Measure what is named."""
    if names and names[0] == "--way":
        print(json.dumps(way(names[1])))
        return
    for name in names or ("lockstep", "ray"):
        {"lockstep": lockstep, "ray": ray}[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
