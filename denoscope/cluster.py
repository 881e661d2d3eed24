"""Sweeps on many devices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from .editing.weights import edits_on
from .models.arguments import checked
from .models.errors import StateError, UsageError


@checked
@contextmanager
def on_ray(
    address: str | None = None, gpus_per_worker: float = 0, *, workers: int | None = None
) -> Iterator[None]:
    """Let the sweeps of a block run on a Ray cluster: ``sweep``, and what is made of sweeps.

    A worker is a process that opens the model by its name or folder, puts on it the edits that are on it
    here, and refuses to work if it then is not the same. Batches, stores and results are those of one
    process, to the bit where the workers' processors round alike. Metrics and judges run here.

    Args:
        address: of a running cluster, ``"auto"`` or ``"host:port"``; None is the one that this process is
            connected to, or that ``RAY_ADDRESS`` names, else one of this machine's cores for the block.
        gpus_per_worker: how much of a GPU a worker has, 0.5 or 1 for example; 0 is workers on CPUs, each with
            as many threads as torch uses here.
        workers: how many; None is as many as the nodes have room for.

    Raises:
        RuntimeError: if Ray is not installed, or none answers; and, in a sweep, if a worker cannot open the
            model, has another one, or is lost several times.
        ValueError: for more GPUs than any node has, and for more workers than there is room for; in a sweep
            for models that were opened from an object, and for interventions without a spec.
    """
    if not 0 <= gpus_per_worker < math.inf:
        raise UsageError(f"gpus_per_worker is {gpus_per_worker}; it is a number from 0 (CPUs) up")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it is 1 or more, or None for as many as there is room for")
    if find_spec("ray") is None:
        raise StateError("ray is not installed; pip install 'denoscope[ray]', or leave out on_ray")
    from .probes.sweep.ray import workers_on

    with workers_on(address, gpus_per_worker, workers, edits_on):
        yield
