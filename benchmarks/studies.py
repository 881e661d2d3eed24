"""What a store costs: beside the embedded model's sweep, and to read 10,000 finished units again."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import pages
import torch
from measure import Row

import denoscope
from denoscope.models.run.context import When
from denoscope.models.store.study import studying
from denoscope.probes.intervene import scale
from denoscope.probes.sweep.batching import SweepExecutor

RUNS, STEPS, BATCH, UNITS = 32, 10, 8, 10_000
PAGE = "docs/studies.md"


def measure() -> list[Row]:
    """Both; the page gets them too."""
    rows = [_overhead(), _again("scores, in the database", 80), _again("arrays, in files", 4096)]
    cells = [(r.what, f"{r.value:.2%}" if not r.unit else f"{r.value:.2f} {r.unit}", r.note) for r in rows]
    pages.write(PAGE, "studies", pages.table(("what", "measured", "how much"), cells))
    return rows


def _overhead() -> Row:
    """Everything but the sampling itself, in wall time, fsync included, over the sweep's CPU time."""
    model = denoscope.load("emoji")
    site = next(iter(model.sites("unet/**/cross_attn.out")))
    prompt = "a noto emoji of a dog"
    runs = [denoscope.SweepRun(prompt, i, (scale(site, 2.0, When({i % STEPS})),)) for i in range(RUNS)]
    start = time.process_time()
    made = denoscope.sweep(model, runs, steps=STEPS, batch=BATCH).latents
    spent = time.process_time() - start
    known = {
        "_plain": lambda _, batch: (made[: len(batch.finished)], 0),
        "_changed": lambda _, batch: (made[: len(batch.runs)], 0),
    }
    with tempfile.TemporaryDirectory() as folder, mock.patch.multiple(SweepExecutor, **known):
        start = time.perf_counter()
        denoscope.sweep(model, runs, steps=STEPS, batch=BATCH, store=Path(folder) / "store")
        extra = time.perf_counter() - start
    note = f"{extra:.2f} s, keys, hashes, encoding and writing, beside {spent:.1f} s of {RUNS} runs"
    return Row("a store, beside the sweep", "the sweep without one", extra / spent, 0.02, note=note)


def _again(what: str, size: int) -> Row:
    """Seconds of CPU time to read a finished study."""
    values = torch.rand(size)

    def study(folder: str) -> None:
        with studying(folder, {"weights": "none"}, "study", {"size": size}, units=UNITS) as one:
            for i in range(UNITS if one else 0):
                one.make({"i": i, "size": size}, lambda: ({"values": values}, 1))  # type: ignore[union-attr]

    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(os, "fsync"):
            study(folder)
        start = time.process_time()
        study(folder)
        spent = time.process_time() - start
    note = f"{UNITS} units of {size} numbers each, all compared with their hashes"
    return Row(f"a finished study again: {what}", "", spent, 5.0, "s", note)
