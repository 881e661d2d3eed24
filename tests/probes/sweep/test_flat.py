"""Many traces and sweep rows in one process: memory, file descriptors and threads stay as they are."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from denoscope.probes.intervene import scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
SITES = "unet/**"


def held() -> tuple[int, int, int]:
    """Bytes of memory, file descriptors and threads of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return pages * os.sysconf("SC_PAGE_SIZE"), files, threading.active_count()


def work(model: Any, traces: int, rows: int, store: Path | None) -> int:
    """So many traces, and so many rows of sweeps; returns the bytes that all traces kept."""
    kept = 0
    for i in range(traces):
        kept += trace(model, ["a cat"], seeds=[i], sites=SITES, steps=1, guidance=1.0).nbytes
    for first in range(0, rows, 64):
        runs = [SweepRun("a cat", first + i, (scale(CROSS, 2.0),)) for i in range(64)]
        sweep(model, runs, steps=1, guidance=1.0, batch=64, store=store)
    return kept


CROSS = "unet/mid.attn.0.0/cross_attn.out"


def flat(model: Any, folder: Path, traces: int, rows: int) -> None:
    work(model, 5, 64, folder)
    memory, files, threads = held()
    kept = work(model, traces, rows, folder)
    more, now_files, now_threads = held()
    assert (now_files, now_threads) == (files, threads)
    assert more - memory < kept / 4, f"{(more - memory) / 1e6:.1f} MB more, {kept / 1e6:.1f} MB went through"


def test_memory_files_and_threads_stay_as_they_are(tiny: Any, tmp_path: Path) -> None:
    flat(tiny, tmp_path, 50, 256)


@pytest.mark.stress
def test_a_thousand_traces_and_ten_thousand_rows(tiny: Any, tmp_path: Path) -> None:
    flat(tiny, tmp_path, 1_000, 10_000)
