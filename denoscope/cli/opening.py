"""What several commands do first: look at the place to write, open the model, apply an edit, sample."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import FileInTheWayError
from ..models.store.disk import check_writable
from .options import Opening, Runs
from .output import Output

if TYPE_CHECKING:
    from ..models.base import Model
    from ..models.progress import Progress
    from ..probes.trace import Trace


SLEEP = "PASSIVE"
"""What OpenMP calls it."""
MALLOPT = {-1: 2**31 - 1, -3: 2**30}
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: bytes that are kept, and that come from the heap."""


def open_model(how: Opening, to: Output) -> Model:
    """Open a model, saying so while it takes its time."""
    from ..models.load import load
    from ..models.opening.placing import placing

    use_threads(how.model)
    with to.status(f"opening {how.model}"):
        return load(how.model, **placing(how.device, how.dtype))


def sleep_while_waiting() -> None:
    """Let torch's threads sleep while they wait for each other, if it is not loaded yet.

    Those that spin, as is usual, make two threads nine times slower than one beside other load; those that
    sleep make them twice as fast.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", SLEEP)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, which the next step asks for again, if the process is a command's own.

    To give it back and fetch it anew takes a tenth of the time of small models on a CPU.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    if tune := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, most in MALLOPT.items():
            tune(parameter, most)


def use_threads(model: str) -> None:
    """Give embedded models two threads if these sleep while they wait, and one if not."""
    import torch

    from ..models.zoo import ZOO

    if model in ZOO and "OMP_NUM_THREADS" not in os.environ:
        sleep = os.environ.get("OMP_WAIT_POLICY", "").upper() == SLEEP
        torch.set_num_threads(min(2, os.cpu_count() or 1) if sleep else 1)


def check_new(*outputs: Path | None) -> None:
    """Raise OSError if something is there already, or it could not be written."""
    for output in outputs:
        if output is None:
            continue
        if output.exists():
            raise FileInTheWayError(f"{output} exists; name a new one with --output, or delete it")
        check_writable(output)


@contextmanager
def edited(model: Model, file: Path | None) -> Iterator[None]:
    """Apply the edit of a file to a model for the length of a with block; no file, no edit."""
    from ..editing.edit import Edit

    if file is None:
        yield
    else:
        with Edit.load(file).applied(model):
            yield


def trace_prompt(model: Model, prompt: str, run: Runs, show: Progress, **more: Any) -> Trace:
    """Sample one prompt with each seed under a progress bar."""
    from ..investigation.case import seeds_of
    from ..probes.trace import trace

    seeds = seeds_of(run.chosen)
    return trace(
        model,
        [prompt] * len(seeds),
        seeds=seeds,
        steps=run.steps,
        guidance=run.guidance,
        progress=show,
        **more,
    )
