"""Nothing moves between the device that computes and main memory but what is meant to, and no more a step.

The device is one that a machine without any has (tests/far.py): it refuses to mix tensors, and tables of
Python's numbers. What crosses is counted as on a GPU, by benchmarks/crossings.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import denoscope
from denoscope import When
from denoscope.analysis import Swap, metrics, trace_denoiser
from denoscope.models.load import load
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.intervene import Intervention, scale
from tests.far import FAR, Far, far

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from crossings import IN, OUT, READ, Crossings, per_step  # noqa: E402

MAKERS = {
    "sd": tiny.tiny_sd,
    "sdxl": tiny_families.tiny_sdxl,
    "pixart": tiny_families.tiny_pixart_sigma,
    "sd3": tiny_families.tiny_sd3,
    "flux": tiny_families.tiny_flux,
}
TEXTS, SEEDS = ["a cat", "a dog"], [0, 1]


def attended(model):
    part = model.input_site.component
    return [s for s in model.sites(f"{part}/**") if s.kind in ("cross_attn.out", "joint_attn.out")][:2]


def ours(each):
    """Crossings by module; diffusers' own are its schedulers', which read their times where they lie."""
    others = {module for (_, package, module) in each if package != "denoscope"}
    assert all(module.startswith("diffusers.schedulers.") for module in others)
    return {(kind, module): n for (kind, package, module), n in each.items() if package == "denoscope"}


@pytest.mark.parametrize("name", MAKERS)
def test_a_trace_moves_what_it_keeps_once_a_step_and_nothing_else(name):
    pipe = MAKERS[name]()
    model = load(pipe)
    sites = attended(model)

    def run(steps):
        return denoscope.trace(model, TEXTS, seeds=SEEDS, steps=steps, sites=sites)

    near = run(3)
    with far(pipe):
        there = run(3)
        each, always = per_step(run, 2, 3)
        assert isinstance(there.latents, Far) and there.latents.device == FAR
    assert ours(each) == {(OUT, "denoscope.probes.keep"): len(sites)}
    assert 0 < sum(always.values()) < 40  # texts, noise and times go there; numbers of the log come back
    torch.testing.assert_close(there.latents.near, near.latents, rtol=1e-3, atol=1e-3)
    for site in sites:  # in main memory, as always
        torch.testing.assert_close(there[site], near[site], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_a_sweep_moves_nothing_at_a_step(name):
    pipe = MAKERS[name]()
    model = load(pipe)
    runs = [denoscope.SweepRun("a cat", i, (scale(attended(model)[0], 2.0),)) for i in range(3)]

    def run(steps):
        return denoscope.sweep(model, runs, steps=steps, batch=2)

    near = run(3)
    with far(pipe):
        there = run(3)
        each, _ = per_step(run, 2, 3)
    assert ours(each) == {}
    torch.testing.assert_close(there.latents.near, near.latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "beside"), [("sd", False), ("flux", True)], ids=["kept", "in lock-step"])
def test_a_causal_map_moves_what_is_kept_or_nothing(name, beside):
    pipe = MAKERS[name]()
    model = load(pipe)
    call = {"seeds": [0], "metric": metrics.latent_distance(), "corruption": Swap("dog")}
    call |= {"sites": attended(model), **({"memory": 0} if beside else {})}

    def run(steps):
        return trace_denoiser(model, ["a cat"], "cat", steps=steps, **call).data.restored.values

    near = run(3)
    with far(pipe):
        there = run(3)
        each, _ = per_step(run, 2, 3)
    kept = {(OUT, "denoscope.probes.keep"): 2, (IN, "denoscope.probes.intervene"): 2}
    assert ours(each) == ({} if beside else kept)
    assert there == pytest.approx(near, rel=1e-3, abs=1e-5)


def test_rows_that_are_not_side_by_side_are_told_to_the_device_once():
    pipe = tiny.tiny_sd()
    model = load(pipe)
    change = Intervention(attended(model)[0], lambda x, _: 2 * x, When(rows=(0, 2)))
    run = {"seeds": [0, 1, 2], "interventions": [change]}
    with far(pipe):
        each, _ = per_step(lambda n: denoscope.trace(model, ["a cat"] * 3, steps=n, **run), 2, 3)
    assert ours(each) == {}


def test_what_looks_at_numbers_or_takes_them_away_is_seen():
    pipe = tiny.tiny_sd()
    model = load(pipe)

    def looks(x, _):
        return x * x.mean().item() + x.cpu().to(x.device)

    change = Intervention(attended(model)[0], looks)
    with far(pipe):
        each, _ = per_step(
            lambda n: denoscope.trace(model, ["a cat"], seeds=[0], steps=n, interventions=[change]), 2, 3
        )
    assert ours(each) == {(kind, "denoscope.models.places.intervention"): 1 for kind in (READ, OUT, IN)}


def test_the_device_refuses_what_a_gpu_would():
    near = torch.ones(2, 2)
    with torch.no_grad(), far(tiny.tiny_sd()), Crossings() as seen:
        x = near.to(FAR)
        with pytest.raises(RuntimeError, match="of tensors on two devices"):
            x + near
        for table in (lambda: torch.tensor([1.0], device=FAR), lambda: x[[0, 1]]):
            with pytest.raises(NotImplementedError):
                table()
        y = x.clone()
        y[0] = 5.0
        assert y.tolist() == [[5.0, 5.0], [1.0, 1.0]] and (x + torch.tensor(1.0)).cpu().sum() == 8
    assert {kind: seen.of(kind=kind) for kind in (IN, OUT, READ)} == {IN: 1, OUT: 2, READ: 0}
    with pytest.raises(RuntimeError, match="outside the device's context"):
        x + x
