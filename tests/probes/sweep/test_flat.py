"""Many traces and sweep rows in one process: memory, file descriptors and threads stay as they are."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from denoscope.probes.intervene import scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
SITE = "unet/mid.attn.0.0/cross_attn.out"


def work(model: Any, store: Path, traces: int, sweeps: int, rows: int) -> int:
    """So many traces, and sweeps of so many rows; returns the bytes that all traces kept."""
    kept = 0
    for i in range(traces):
        kept += trace(model, ["a cat"], seeds=[i], sites="unet/**/*.out", steps=1, guidance=1.0).nbytes
    for i in range(sweeps):
        runs = [SweepRun("a cat", rows * i + j, (scale(SITE, 2.0),)) for j in range(rows)]
        sweep(model, runs, steps=1, guidance=1.0, batch=128, store=store)
    return kept


def opened() -> tuple[int, int]:
    """File descriptors and threads of this process."""
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def tensors() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    alive = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
    return sum({x.data_ptr(): x.nbytes for x in alive}.values())


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_tenth_of_that_leaves_no_tensor_file_or_thread(tiny: Any, tmp_path: Path) -> None:
    work(tiny, tmp_path, 1, 1, 100)  # as many rows as below: tables of indices are kept by size, up to 512
    before, files = tensors(), opened()
    held = trace(tiny, ["a cat"], seeds=[0], sites=SITE, steps=1)
    assert tensors() > before  # it would be seen
    del held
    assert work(tiny, tmp_path, 100, 10, 100) and tensors() == before and opened() == files


@pytest.mark.stress
def test_a_thousand_traces_and_ten_thousand_rows(tiny: Any, tmp_path: Path) -> None:
    work(tiny, tmp_path, 50, 10, 100)
    before, files = resident(), opened()
    kept = work(tiny, tmp_path, 1_000, 100, 100)
    more = resident() - before
    assert opened() == files
    assert more < kept / 10, f"{more / 1e6:.1f} MB more, and {kept / 1e6:.1f} MB went through"
