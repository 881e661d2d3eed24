"""The clean run in lock-step: the numbers of the stored way, chosen by itself, and nothing kept."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import Noise, plan_study, trace_denoiser
from denoscope.analysis.metrics import Outcome, latent_distance
from denoscope.models.store.studies import read_studies
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, patch
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

CROSS, MID = "unet/up.0.attn.0.0/cross_attn.out", "unet/mid.attn.0.0/mlp.out"
OTHER = "unet/mid.attn.0.0/cross_attn.out"
WAYS: dict[str, dict[str, Any]] = {
    "windows": {"sites": [CROSS, OTHER], "windows": [[1]], "direct": True, "neighbours": 3},
    "heads": {"sites": "unet/mid.attn.0.0/cross_attn.z", "heads": [1], "batch": 1},
    "tokens": {"sites": "unet/in/text", "tokens": [3, (1, 2)], "guidance": 1.0},
}


def number(outcome: Outcome) -> torch.Tensor:
    return outcome.latents.flatten(1)[:, 3]


@pytest.fixture(scope="module")
def model() -> Any:
    """In double precision, where batches of other sizes round far below any effect."""
    return denoscope.load(tiny_sd().to(torch.float64))


def traced(model: Any, **more: Any) -> Any:
    how: dict[str, Any] = {"seeds": [0], "metric": number, "steps": 2, "batch": 4, "guidance": 3.0}
    return trace_denoiser(model, ["a red cat"], "cat", corruption=Noise(draws=2), **{**how, **more})


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.stress] * (n != "tokens")) for n in WAYS]
)
def test_it_gives_the_numbers_of_the_stored_way(model: Any, name: str) -> None:
    stored, beside = traced(model, **WAYS[name]), traced(model, **WAYS[name], memory=0)
    assert set(stored.data) == set(beside.data)
    for kind in stored.data:
        np.testing.assert_allclose(beside.data[kind], stored.data[kind], rtol=0, atol=1e-11)
    assert float(abs(stored.data["restored"] - stored.data["corrupted"]).max()) > 1e-6
    assert "clean_run" not in stored.data.attrs and beside.data.attrs["clean_run"] == "in lock-step"


def test_it_is_chosen_where_storing_would_exceed_the_memory(tiny: Any, caplog: Any, monkeypatch: Any) -> None:
    kept = trace(tiny, ["a red cat"], seeds=[0], sites=[MID], steps=2).nbytes
    call = {"seeds": [0], "metric": number, "sites": [MID], "steps": 2, "corruption": Noise(draws=1)}
    few = plan_study(trace_denoiser, tiny, ["a red cat"], "cat", **call, memory=kept)
    assert few.kept == kept and not caplog.records
    with caplog.at_level(logging.WARNING):
        plan = plan_study(trace_denoiser, tiny, ["a red cat"], "cat", **call, memory=kept - 1)
        monkeypatch.setattr("denoscope.analysis.mediation.restoring.trace", None)  # nothing is kept
        found = trace_denoiser(tiny, ["a red cat"], "cat", **call, memory=kept - 1)
    assert plan.kept == 0 and plan.rows == found.rows and plan.exact
    assert f"more than memory={(kept - 1) / 1e6:.3g} MB: it runs in lock-step, as one more row" in caplog.text
    with pytest.raises(ValueError, match="memory is -1; it is a number of bytes"):
        trace_denoiser(tiny, ["a red cat"], "cat", **call, memory=-1)


@pytest.mark.stress
def test_one_row_goes_beside_all_runs_of_a_batch(tiny: Any) -> None:
    """7 restored runs of 2 guided steps in a batch of 8; clean and corrupted ones in another."""
    sites = [str(s) for s in tiny.sites("unet/**/*_attn.out")][:7]
    found = trace_denoiser(tiny, ["a red cat"], "cat", seeds=[0], metric=number, sites=sites, steps=2,
                           corruption=Noise(draws=1), memory=0, guidance=3.0, batch=8)  # fmt: skip
    assert found.rows == 2 * 4 + 8 * (4 - 1)  # unconditional outputs of the first step are known


@pytest.mark.stress
def test_a_companion_that_is_shared_starts_from_its_own_run(tiny: Any) -> None:
    """Late windows: it is at its own latents there, not at those of the run beside it."""
    seen: list[torch.Tensor] = []

    def look(x: torch.Tensor, _: Any) -> None:
        seen.append(x.clone())

    late = denoscope.When([1])
    runs = [
        SweepRun("a cat", seed, (Intervention(MID, look, late),), ("a dog",), shared=True) for seed in (0, 1)
    ]
    assert len({run.beside[0].seed for run in runs}) == 2
    sweep(tiny, runs, steps=2, guidance=3.0)
    values = trace(tiny, ["a cat", "a dog"] * 2, seeds=[0, 0, 1, 1], sites=MID, steps=2, guidance=3.0)
    torch.testing.assert_close(torch.cat(seen), values.at(MID, 1), atol=1e-5, rtol=0)
    own = sweep(tiny, [SweepRun("a cat", 0, (patch(MID, values[MID][:, 1:2], late),))], steps=2, guidance=3.0)
    assert not torch.equal(own.latents[0], values.latents[0])


@pytest.mark.stress
def test_a_store_keeps_it_apart_from_the_stored_way(tiny: Any, tmp_path: Any, monkeypatch: Any) -> None:
    call: dict[str, Any] = {"metric": latent_distance(), "sites": [MID], "store": tmp_path, "guidance": None}
    found = traced(tiny, **call, memory=0)
    traced(tiny, **call)
    assert len(read_studies(tmp_path)) == 2
    monkeypatch.setattr("denoscope.probes.sweep.sweeping.SweepExecutor", None)
    assert traced(tiny, **call, memory=0).data.identical(found.data)
