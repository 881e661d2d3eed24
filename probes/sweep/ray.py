"""Batches of sweeps on a Ray cluster: the one file that knows Ray. Ray schedules, places and restarts."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from ...models.base import Model
from ...models.errors import DenoscopeError, StateError, UsageError
from ...models.load import load
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.canonical import differences, plain_json
from ...models.store.identity import identity
from .batching import WORKERS, SweepExecutor
from .keeping import check_specs
from .partition import Batch, ChangedBatch, PlainBatch, Timed
from .wire import Carried, Job, Message, Moments, Sender, check_loaded, read

log = logging.getLogger("denoscope")

TRIES = 3
"""How often a batch is given out whose worker is lost."""
Edits = Callable[[Model], Sequence[Carried]]


class Worker:
    """A process that holds an opened model."""

    def __init__(self, threads: int, device: str) -> None:
        torch.set_num_threads(threads)  # sums in another number of threads round otherwise
        self.device = device
        self.jobs: dict[Any, tuple[Model, SamplingOptions]] = {}  # the last one alone
        self.model: Model | None = None
        self.loaded: Mapping[str, Any] = {}
        self.edits: list[Carried] = []

    def ready(self) -> None:
        """Be there."""

    def make(
        self, job: Sequence[Any], message: Message, *moments: Moments
    ) -> tuple[tuple[torch.Tensor, int, float], Moments]:
        """Return what a batch came to, and where others start from it."""
        if job[0] not in self.jobs:
            told: Job = ray.get(job[0])
            self.jobs = {job[0]: (self.open(told), told.settings)}
        work = SweepExecutor(*self.jobs[job[0]])
        work.starts = {key: state for some in moments for key, state in some.items()}
        with torch.no_grad():
            batch = read(message, work.model.device, ray.get)
            _, (latents, rows), seconds = work.one(batch)
        return (latents.cpu(), rows, seconds), work.starts if isinstance(batch, PlainBatch) else {}

    def open(self, job: Job) -> Model:
        """Open the model, put the edits of the units on it, and compare it with the driver's.

        Raises:
            StateError: if it cannot be opened, or is not the same.
        """
        where, source = f"the worker on {socket.gethostname()}", job.loaded["source"]
        try:
            model = self._opened(job)
        except (OSError, DenoscopeError) as error:
            raise StateError(
                f"{where} cannot open {source!r} as this process did: {error}. Every worker needs the same "
                "files under the same name: a folder on a disk that all share, a hub id, or the zoo"
            ) from None
        base = plain_json(identity(model, Sampling(**job.settings), 0), "what a worker computes with")
        different = list(differences(base, job.base))
        if different:
            raise StateError(
                f"{where} opened {source!r}, and it is not the model of this process (there is the worker): "
                f"{'; '.join(different)}. Units carry edits alone: save what else was changed "
                "(pipe.save_pretrained(folder)) and open that, or leave out on_ray"
            )
        return model

    def _opened(self, job: Job) -> Model:
        if self.model is None or self.loaded != job.loaded:
            self.model, self.edits = None, []  # a failure leaves no half of it
            self.model, self.loaded = load(**job.loaded, device=self.device), job.loaded
        if self.edits != list(job.edits):
            while self.edits:
                self.edits.pop().revert(self.model)
            for edit in job.edits:
                edit.apply(self.model)
                self.edits.append(edit)
        return self.model.sized((job.size[0], job.size[1]) if job.size else None)


class RayWorkers:
    """Gives batches to workers, one at a time each, and takes what comes back."""

    def __init__(self, workers: Sequence[Any], edits: Edits) -> None:
        self.workers, self.edits = workers, edits

    def make(self, model: Model, settings: SamplingOptions, batches: Sequence[Batch]) -> Iterator[Timed]:
        """Yield batches as they are made."""
        if not batches:
            return
        for run in (run for batch in batches for run in batch.runs.values()):
            check_specs(run, "on Ray nobody can tell whether all workers have the same one", "on_ray")
        job, sender = ray.put(self._job(model, settings)), Sender(ray.put)
        todo, left, lost = deque(_order(batches)), set(batches), Counter[Batch]()
        moments: dict[Batch, Any] = {}
        running: dict[Any, tuple[Any, Batch | None]] = {w.ready.remote(): (w, None) for w in self.workers}
        free: deque[Any] = deque()
        while left:
            while todo and free:
                batch, worker = todo.popleft(), free.popleft()
                after = [moments[one] for one in _after(batch)]
                call = worker.make.options(num_returns=2, max_task_retries=0)  # we tell, then try again
                made, moments[batch] = call.remote([job], sender.message(batch), *after)
                running[made] = worker, batch
            done = ray.wait(list(running), num_returns=1)[0][0]
            worker, done_batch = running.pop(done)
            free.append(worker)
            found = _result(done)
            if done_batch is None:
                continue
            if isinstance(found, RayError):
                lost[done_batch] += 1
                _tell(done_batch, found, lost[done_batch])
                todo = deque(_plain_first([*_to_repeat(done_batch, found), *todo]))
            elif done_batch in left:
                left.remove(done_batch)
                latents, rows, seconds = found
                yield done_batch, (latents.to(model.device), rows), seconds

    def _job(self, model: Model, settings: SamplingOptions) -> Job:
        loaded = check_loaded(model)
        base = plain_json(identity(model, Sampling(**settings), 0), "what a model computes with")
        return Job(loaded, model.size, self.edits(model), settings, base)


def _after(batch: Batch) -> Sequence[PlainBatch]:
    return batch.after if isinstance(batch, ChangedBatch) else ()


def _order(batches: Sequence[Batch]) -> list[Batch]:
    """Batches, and those from which they start."""
    return _plain_first([*batches, *(one for batch in batches for one in _after(batch))])


def _plain_first(batches: Sequence[Batch]) -> list[Batch]:
    """Each once, and first those from which others start; Ray waits for what a batch is given."""
    return sorted(dict.fromkeys(batches), key=lambda batch: isinstance(batch, ChangedBatch))


def _to_repeat(batch: Batch, error: RayError) -> Sequence[Batch]:
    """What is made again: the batch, and what it starts from if that was lost."""
    return [*_after(batch), batch] if isinstance(error, ObjectLostError) else [batch]


def _result(ref: Any) -> Any:
    """What a task returned, or the RayError of a lost worker; its own error is raised."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RayError):  # what it was given was lost
            return error.cause
        raise error.cause if isinstance(error.cause, DenoscopeError) else error from None
    except RayError as error:
        return error


def _tell(batch: Batch, error: RayError, times: int) -> None:
    cause = " ".join(str(error).split())
    if times == TRIES:
        raise StateError(
            f"a batch of {len(batch.runs)} runs lost its worker {TRIES} times; the last time: {cause}"
        ) from error
    log.warning("a worker was lost with a batch of %d runs, which is made again: %s", len(batch.runs), cause)


@contextmanager
def workers_on(
    address: str | None, gpus_per_worker: float, workers: int | None, edits: Edits
) -> Iterator[None]:
    """Let the sweeps of a block run on a cluster; see ``denoscope.on_ray``."""
    if WORKERS.get() is not None:
        raise StateError("on_ray is active already; sweeps run on that cluster")
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        if not ray.is_initialized():
            _connect(address, None if gpus_per_worker or workers is None else workers * threads)
            stack.callback(ray.shutdown)
        elif address is not None:
            raise StateError(f"this process is connected to Ray already; leave out address={address!r}")
        needs = {"num_gpus": gpus_per_worker, "num_cpus": 1} if gpus_per_worker else {"num_cpus": threads}
        device = "cuda" if gpus_per_worker else "cpu"
        remote = ray.remote(max_restarts=-1, max_task_retries=-1, **needs)(Worker)
        count = _count(gpus_per_worker, threads, workers)
        made: list[Any] = [remote.remote(threads, device) for _ in range(count)]
        stack.callback(lambda: [ray.kill(worker) for worker in made])
        token = WORKERS.set(RayWorkers(made, edits))
        stack.callback(WORKERS.reset, token)
        yield


def _connect(address: str | None, cpus: int | None) -> None:
    """Connect to a cluster, or start one: of all cores, or with room for so many."""
    alone = address is None and "RAY_ADDRESS" not in os.environ
    local: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus} if alone else {}
    if alone:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports to nobody
    try:
        _check_answers(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
    except Exception as error:  # Ray raises a bare one where a cluster takes too long to start
        why = " ".join(str(error).split())
        if alone:
            raise StateError(f"Ray does not start on this machine: {why}") from error
        raise StateError(
            f"no Ray cluster answers at {address or os.environ['RAY_ADDRESS']!r} ({why}); start one there "
            "(ray start --head), or leave out address to start one on this machine"
        ) from error


def _check_answers(address: str) -> None:
    """Raise OSError if nobody listens there; Ray tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()
    return found


def _count(gpus_per_worker: float, threads: int, workers: int | None = None) -> int:
    """How many workers there will be: those asked for, or as many as there is room for, node by node."""
    kind, each = ("GPU", gpus_per_worker) if gpus_per_worker else ("CPU", float(threads))
    nodes = [float(node["Resources"].get(kind, 0)) for node in _nodes() if node["Alive"]]
    count = sum(int(n / each + 1e-9) for n in nodes)
    if not count:
        what = (
            f"gpus_per_worker is {gpus_per_worker:g}" if gpus_per_worker else f"torch uses {threads} threads"
        )
        fewer = "give fewer" if gpus_per_worker else "torch.set_num_threads(1) takes fewer"
        raise UsageError(
            f"{what}, but no node of the cluster has more than {max(nodes, default=0):g} {kind}s; {fewer}"
        )
    if workers is not None and workers > count:
        raise UsageError(
            f"workers is {workers}, but the cluster has room for {count}; give fewer, or leave it out"
        )
    return count if workers is None else workers
