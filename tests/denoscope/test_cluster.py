"""Sweeps on Ray: what goes to workers and what comes back; the tests with a cluster are stress tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import denoscope
from denoscope.analysis import trace_denoiser
from denoscope.analysis.mediation.choice import Piece
from denoscope.analysis.metrics import latent_distance
from denoscope.editing import quickfix
from denoscope.editing.weights import edits_on
from denoscope.models.errors import StateError, UsageError
from denoscope.models.run.sampling import Sampling
from denoscope.models.store.canonical import plain_json
from denoscope.models.store.identity import identity
from denoscope.models.store.studies import read_studies
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, Spec, patch, scale
from denoscope.probes.sweep import batching, ray
from denoscope.probes.sweep.keeping import Keeper
from denoscope.probes.sweep.partition import PlainBatch, SweepRun
from denoscope.probes.sweep.sweeping import sweep
from denoscope.probes.sweep.wire import Job, Sender, check_loaded, read
from denoscope.probes.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore")
SITE = "unet/mid.attn.0.0/mlp.out"
HOW: dict[str, Any] = {"steps": 2, "batch": 2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_sd().save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path) -> Any:
    return denoscope.load(saved)


def some(model: Any) -> list[SweepRun]:
    """Plain runs, windows, large patches, companions of both kinds."""
    site = "unet/up.0.res.0/resnet.out"
    values = trace(model, ["a dog"], seeds=[0], sites=site, steps=2)
    large = patch(site, values)
    late = denoscope.When([1])
    return [
        SweepRun("a cat", 0),
        *(SweepRun("a cat", s, (scale(SITE, 1.5 + s, denoscope.When({s})),)) for s in range(2)),
        SweepRun("a cat", 0, (large,)),
        SweepRun("a cat", 1, (large, scale(SITE, 2.0))),
        SweepRun("a cat", 1, (Piece(late).copied(denoscope.Site(SITE), 1, 0),), ("a dog",)),
        SweepRun("a cow", 1, (Piece(late).copied(denoscope.Site(SITE), 1, 0),), ("a dog",), shared=True),
    ]


class Post:
    """Workers in this process, to which batches go as messages."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, thing: Any) -> int:
        self.sent.append(thing)
        return len(self.sent) - 1

    def make(self, model: Any, settings: Any, batches: Sequence[Any]) -> Iterator[Any]:
        sender, moments = Sender(self.send), dict[Any, Any]()
        for batch in ray._order(batches):
            work = batching.SweepExecutor(model, settings)
            for one in ray._after(batch):
                work.starts.update(moments[one])
            message = sender.message(batch)
            assert not any(isinstance(p, denoscope.Prompt) for run in message.batch.runs.values()
                           for p in (run.prompt, *run.companions))  # fmt: skip
            _, made, seconds = work.one(read(message, model.device, self.sent.__getitem__))
            moments[batch] = work.starts if isinstance(batch, PlainBatch) else {}
            if batch in batches:
                yield batch, made, seconds


def test_what_goes_to_workers_comes_back_to_the_bit(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("denoscope.probes.sweep.wire.INLINE", 1_000)
    runs = some(model)
    plain = sweep(model, runs, **HOW)
    post = Post()
    token = batching.WORKERS.set(post)
    try:
        found = sweep(model, runs, **HOW, store=tmp_path)
        assert torch.equal(found.latents, plain.latents) and found.rows == plain.rows
    finally:
        batching.WORKERS.reset(token)
    prompts = [x for x in post.sent if isinstance(x, denoscope.Prompt)]
    assert len(prompts) == 3  # each text once, though it is in several batches
    assert len(post.sent) == 3 + 1  # and the large patch
    (record,) = read_studies(tmp_path)
    assert record.done and record.rows == plain.rows and record.seconds > 0


def job(model: Any, **changed: Any) -> Job:
    settings: Any = {"steps": 3}
    base = plain_json(identity(model, Sampling(**settings), 0), "")
    given = {
        "loaded": check_loaded(model),
        "size": model.size,
        "edits": edits_on(model),
        "settings": settings,
    }
    return Job(**{**given, "base": base, **changed})


@pytest.mark.stress
def test_a_worker_carries_the_edits_and_refuses_another_model(model: Any) -> None:
    first, second = quickfix(model, {"cat": "dog"}), quickfix(model, {"cow": "pig"})
    worker = ray.Worker(1, "cpu")
    plain = job(model)
    with first.applied(model):
        assert edits_on(model) == [first]
        worker.open(job(model))
        assert list(worker.edits) == [first]
    worker.open(plain)  # and takes them off again
    assert not worker.edits and not edits_on(model)
    both = first + second
    with both.applied(model):
        worker.open(job(model))
        with pytest.raises(StateError, match=r'weights is ".*\.\.\. there.*Units carry edits alone'):
            worker.open(job(model, edits=()))
    model.pipe.scheduler = type(model.pipe.scheduler).from_config(model.pipe.scheduler.config, beta_end=0.01)
    with pytest.raises(StateError, match="not the model of this process .*scheduler.beta_end is 0.012 there"):
        worker.open(job(model))


@pytest.mark.stress
def test_edits_on_top_of_each_other_are_told_lowest_first(model: Any) -> None:
    first = quickfix(model, {"cat": "dog"})
    with first.applied(model):
        second = quickfix(model, {"cow": "pig"})
        with second.applied(model):
            assert edits_on(model) == [first, second]
    assert edits_on(model) == []


def test_a_worker_without_the_files_says_so(model: Any, tmp_path: Path) -> None:
    gone = {**check_loaded(model), "source": str(tmp_path / "gone")}
    with pytest.raises(
        StateError, match=r"the worker on .* cannot open '.*gone' as this process did: .*a disk"
    ):
        ray.Worker(1, "cpu").open(job(model, loaded=gone))


def test_what_cannot_leave_the_process_is_told(tiny: Any, model: Any) -> None:
    workers = ray.RayWorkers([], edits_on)
    own = [SweepRun("a cat", 0, (Intervention(SITE, lambda x, _: 2 * x),))]
    token = batching.WORKERS.set(workers)
    try:
        with pytest.raises(UsageError, match=r"is a function, and on Ray.*spec=Spec\(.*Or leave out on_ray"):
            sweep(model, own, **HOW)
        with pytest.raises(UsageError, match=r"opened from an object .*pipe.save_pretrained\(folder\)"):
            check_loaded(tiny)
        with pytest.raises(StateError, match="on_ray is active already"), denoscope.on_ray():
            pass
    finally:
        batching.WORKERS.reset(token)


@pytest.mark.parametrize(
    ("gpus", "nodes", "words"),
    [
        (2, [{"CPU": 8, "GPU": 1}], "gpus_per_worker is 2, but no node of the cluster has more than 1 GPUs"),
        (0.5, [{"CPU": 8}], "no node of the cluster has more than 0 GPUs; give fewer"),
        (0, [{"CPU": 0}], r"no node of the cluster has more than 0 CPUs; torch.set_num_threads\(1\)"),
    ],
)
def test_more_than_there_is_is_told(monkeypatch: Any, gpus: float, nodes: Any, words: str) -> None:
    monkeypatch.setattr(ray.ray, "nodes", lambda: [{"Alive": True, "Resources": n} for n in nodes])
    with pytest.raises(UsageError, match=words):
        ray._count(gpus, 1)
    monkeypatch.setattr(ray.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3, "GPU": 2}}] * 2)
    assert (ray._count(0.5, 1), ray._count(2, 1), ray._count(0, 2)) == (8, 2, 2)
    assert (ray._count(0, 1, 4), ray._count(0, 1, 6)) == (4, 6)
    with pytest.raises(UsageError, match="workers is 7, but the cluster has room for 6; give fewer"):
        ray._count(0, 1, 7)


def test_without_ray_it_says_how_to_get_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "denoscope.cluster.find_spec", lambda name: None if name == "ray" else find_spec(name)
    )
    with pytest.raises(StateError, match=r"pip install 'denoscope\[ray\]'"), denoscope.on_ray():
        pass
    with pytest.raises(UsageError, match="gpus_per_worker is -1"), denoscope.on_ray(gpus_per_worker=-1):
        pass
    with pytest.raises(UsageError, match="workers is 0; it is 1 or more"), denoscope.on_ray(workers=0):
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of two CPUs in this machine."""
    ray.ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.ray.shutdown()


@pytest.mark.stress
def test_two_workers_give_the_bits_of_one_process(model: Any, cluster: None, tmp_path: Path) -> None:
    runs, edit = some(model), quickfix(model, {"cat": "dog"})
    call: Any = {"seeds": [0, 1], "metric": latent_distance(), "sites": SITE, "steps": 2, "batch": 4}
    for on in (edit, -0.5 * edit):
        with on.applied(model):
            plain = sweep(model, runs, **HOW)
            traced = trace_denoiser(model, ["a red cat"], "cat", **call, memory=0)
            with denoscope.on_ray():
                found = sweep(model, runs, **HOW)
                beside = trace_denoiser(model, ["a red cat"], "cat", **call, memory=0, store=tmp_path / on.id)
        assert torch.equal(found.latents, plain.latents) and found.rows == plain.rows
        assert beside.data.identical(traced.data)


@pytest.mark.stress
def test_a_worker_that_is_killed_costs_its_batch(
    model: Any, cluster: None, tmp_path: Path, caplog: Any
) -> None:
    flag = str(tmp_path / "killed")

    def dies(x: Any, _: Any) -> Any:
        if not os.path.exists(flag):  # noqa: PTH110  # a worker has this function alone
            with open(flag, "w"):  # noqa: PTH123
                os.kill(os.getpid(), signal.SIGKILL)
        return 2 * x

    fatal = Intervention(SITE, dies, spec=Spec("dies", {}))
    runs = [*some(model), SweepRun("a cat", 7, (fatal,))]
    with caplog.at_level(logging.WARNING), denoscope.on_ray():
        found = sweep(model, runs, **HOW)
    assert "a worker was lost with a batch of" in caplog.text and Path(flag).exists()
    plain = sweep(model, runs, **HOW)
    assert torch.equal(found.latents, plain.latents) and found.rows == plain.rows

    def always(x: Any, _: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    runs = [SweepRun("a cat", 7, (Intervention(SITE, always, spec=Spec("always", {})),))]
    with pytest.raises(StateError, match="lost its worker 3 times"), denoscope.on_ray():
        sweep(model, runs, **HOW)


@pytest.mark.stress
def test_errors_of_workers_are_ours(model: Any, cluster: None, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    tiny_sd(seed=1).save_pretrained(tmp_path / "model")
    other = denoscope.load(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "gone")
    with denoscope.on_ray():
        with pytest.raises(StateError, match=r"the worker on .* cannot open .*model' as this process did"):
            sweep(other, some(other), **HOW)
        with pytest.raises(UsageError, match="returned"):
            wrong = Intervention(SITE, lambda x, _: x[..., :1], spec=Spec("wrong", {}))
            sweep(model, [SweepRun("a cat", 0, (wrong,))], **HOW)
        assert sweep(model, some(model), **HOW).rows  # the workers are there still
    with pytest.raises(StateError, match="connected to Ray already"), denoscope.on_ray("127.0.0.1:1"):
        pass
    with (
        pytest.raises(UsageError, match="gpus_per_worker is 1, but no node"),
        denoscope.on_ray(gpus_per_worker=1),
    ):
        pass


@pytest.mark.stress
def test_a_driver_that_was_killed_goes_on_from_its_store(model: Any, cluster: None, tmp_path: Path) -> None:
    runs, real, left = some(model), Keeper.keep, [2]

    def stopping(self: Any, *args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Keeper, "keep", stopping)
        with pytest.raises(KeyboardInterrupt), denoscope.on_ray():
            sweep(model, runs, **HOW, store=tmp_path)
    assert read_studies(tmp_path)[0].units == 2
    with denoscope.on_ray():
        found = sweep(model, runs, **HOW, store=tmp_path)
    assert torch.equal(found.latents, sweep(model, runs, **HOW).latents) and read_studies(tmp_path)[0].done


def test_a_cluster_that_does_not_start_is_told(monkeypatch: Any) -> None:
    started: list[Any] = []

    def init(**how: Any) -> None:
        started.append(how["num_cpus"])
        raise Exception("the node timed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray.ray, "init", init)
    words = "Ray does not start on this machine: the node timed out"
    with pytest.raises(StateError, match=words), denoscope.on_ray(workers=3):
        pass
    with pytest.raises(StateError, match="does not start"), denoscope.on_ray():
        pass
    assert started == [3 * torch.get_num_threads(), None]


def test_no_cluster_at_an_address_is_told() -> None:
    words = r"no Ray cluster answers at '127.0.0.1:1' \(.*refused\); start one there \(ray start --head\)"
    with pytest.raises(StateError, match=words), denoscope.on_ray("127.0.0.1:1"):
        pass
