"""First-order effects: exact where all is linear, the slope of the true effect elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import denoscope
from denoscope import Site
from denoscope.analysis import Noise, Scores, agreement, attribution_patching, locate, trace_denoiser
from denoscope.analysis.mediation.runs import open_experiment
from denoscope.analysis.metrics import Outcome
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import patch
from tests.analysis.mediation.test_mediation import Toy

SITES = (
    "unet/mid.attn.0.0/cross_attn.out",
    "unet/up.0.attn.0.0/self_attn.out",
    "unet/down.0.res.0/resnet.out",
)
HOW: dict[str, Any] = {"seeds": [0], "steps": 2, "guidance": 3.0, "corruption": Noise(draws=2)}


def first_number(outcome: Outcome) -> Tensor:
    return outcome.latents.flatten(1)[:, 0]


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def test_equals_the_true_effect_in_a_linear_denoiser() -> None:
    how = {**HOW, "metric": first_number, "sites": "unet/path.*/out"}
    fast = attribution_patching(Toy(), ["a red cat"], "cat", **how)
    true = trace_denoiser(Toy(), ["a red cat"], "cat", **how).indirect_effect
    np.testing.assert_allclose(fast.values, true.values, atol=2e-5)
    assert float(abs(true.values).max()) > 1e-3
    assert fast.values.attrs["approximate"] and "approximate" not in true.values.attrs


def test_is_the_slope_of_the_true_effect(model: Any) -> None:
    """Restored by a hundredth of the way, at all steps at once, the metric moves by a hundredth of it."""
    fast = attribution_patching(model, ["a red cat"], "cat", metric=first_number, sites=SITES, **HOW)
    study = open_experiment(
        model, ["a red cat"], "cat", [0], metric=first_number, corruption=HOW["corruption"], steps=2,
        guidance=3.0, batch=1,
    )  # fmt: skip
    run = {"seeds": [0], "steps": 2, "guidance": 3.0}
    clean = denoscope.trace(model, study.clean, sites=SITES, **run)
    for d, prompt in enumerate(study.corrupted[0]):
        there = denoscope.trace(model, [prompt], sites=SITES, **run)
        for i, site in enumerate(SITES):
            ends = []
            for share in (0.01, -0.01):
                values = there[Site(site)] + share * (clean[Site(site)] - there[Site(site)])
                moved = denoscope.trace(model, [prompt], interventions=[patch(site, values)], **run)
                ends.append(float(moved.latents.flatten(1)[0, 0].double()))
            slope = (ends[0] - ends[1]) / 0.02
            assert float(fast.values[i, 0, 0, d]) == pytest.approx(slope, rel=0.02, abs=2e-4)


def test_prompts_seeds_and_draws_stand_for_themselves(model: Any) -> None:
    how = {**HOW, "metric": first_number, "sites": SITES[:1]}
    both = attribution_patching(model, ["a red cat", "a cat"], "cat", **{**how, "seeds": [0, 3]})
    assert both.values.dims == ("site", "prompt", "seed", "draw") and both.values.shape == (1, 2, 2, 2)
    alone = attribution_patching(model, ["a cat"], "cat", **{**how, "seeds": [3]})
    # the noise is in units of all subjects' embeddings, which are the same word here
    np.testing.assert_allclose(both.values[:, 1:, 1:], alone.values, rtol=0.1)
    assert locate(model, ["a cat"], "cat", method="attribution_patching", **how).places == ["site"]


def test_nothing_is_left_behind(model: Any) -> None:
    assert all(p.grad is None for c in model.components.values() for p in c.parameters())
    with pytest.raises(ValueError, match="has no gradient"):
        attribution_patching(
            model,
            ["a cat"],
            "cat",
            sites=SITES[0],
            metric=lambda o: o.latents.detach().flatten(1)[:, 0],
            **HOW,
        )
    with pytest.raises(TypeError, match=r"has to return a tensor of shape \[2\]"):
        attribution_patching(model, ["a cat"], "cat", sites=SITES[0], metric=lambda o: o.latents, **HOW)


def test_agreement_is_a_rank_correlation() -> None:
    def made(*values: float) -> Scores:
        coords = {"site": [f"unet/a/b{i}" for i in range(len(values))], "seed": [0, 1]}
        return Scores(xr.DataArray(np.stack([values] * 2, 1), coords, ("site", "seed")))

    true = made(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    same = agreement(made(0.1, 0.2, 0.4, 0.8, 1.6, 3.2), true)
    assert same["rank"] == pytest.approx(1) and same["top"] and same["sites"] == 6
    turned = agreement(made(6.0, 5.0, 4.0, 3.0, 2.0, 1.0), true)
    assert turned["rank"] == pytest.approx(-1) and not turned["top"]
    some = agreement(made(1.0, 3.0, 2.0, 4.0, 6.0, 5.0), true)
    assert -1 < some["low"] < some["rank"] < some["high"] < 1
    with pytest.raises(ValueError, match="the scores are of 6 and 5 sites"):
        agreement(true, made(1.0, 2.0, 3.0, 4.0, 5.0))
    assert torch.is_grad_enabled()
