"""Heads, tokens, neighbours and blocked places: each equals the run that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import Noise, Swap, trace_denoiser, trace_text
from denoscope.analysis.mediation.runs import open_experiment
from denoscope.analysis.metrics import Outcome
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import patch
from denoscope.probes.sweep.sweeping import SweepRun, sweep

Z = "unet/mid.attn.0.0/cross_attn.z"
OUT = "unet/mid.attn.0.0/cross_attn.out"
HOW: dict[str, Any] = {"seeds": [0], "steps": 2, "guidance": 3.0, "corruption": Noise(draws=2)}


def first_number(outcome: Outcome) -> torch.Tensor:
    return outcome.latents.flatten(1)[:, 0]


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def ends(model: Any) -> tuple[Any, Any]:
    """The clean and the corrupted prompts of a study, as it makes them."""
    corrupt = open_experiment(
        model, ["a red cat"], "cat", [0], metric=first_number, batch=4,
        corruption=HOW["corruption"], steps=2, guidance=3.0,
    )  # fmt: skip
    return corrupt.clean[0], corrupt.corrupted[0]


def run(model: Any, prompt: Any, *interventions: Any) -> float:
    swept = sweep(model, [SweepRun(prompt, 0, interventions)], steps=2, guidance=3.0)
    return float(swept.latents.flatten(1)[0, 0])


def kept(model: Any, prompt: Any, *sites: str) -> Any:
    return denoscope.trace(model, [prompt], seeds=[0], sites=list(sites), steps=2, guidance=3.0)


def traced(model: Any, sites: Any, **more: Any) -> Any:
    return trace_denoiser(model, ["a red cat"], "cat", metric=first_number, sites=sites, **{**HOW, **more})


def test_heads_are_restored_one_at_a_time(model: Any) -> None:
    found = traced(model, Z, heads=[0, 1, (0, 1)])
    assert found.data["head"].values.tolist() == ["0", "1", "0-1"]
    clean, corrupted = ends(model)
    values = kept(model, clean, Z)
    for i, heads in enumerate([[0], [1], [0, 1]]):
        for d, prompt in enumerate(corrupted):
            want = run(model, prompt, patch(Z, values, heads=heads))
            assert found.data["restored"].values[0, i, 0, 0, d] == pytest.approx(want, abs=2e-5)
    whole = traced(model, Z)
    np.testing.assert_allclose(found.data["restored"].values[:, 2], whole.data["restored"].values, atol=2e-5)


def test_tokens_of_picture_and_text_are_restored_one_at_a_time(model: Any) -> None:
    clean, corrupted = ends(model)
    for site, groups in ((OUT, [0, (1, 2)]), ("unet/in/text", [clean.find("cat"), [0]])):
        found, values = traced(model, site, tokens=groups), kept(model, clean, site)
        for i, group in enumerate(groups):
            tokens = [group] if isinstance(group, int) else list(group)
            want = run(model, corrupted[1], patch(site, values, tokens=tokens))
            assert found.data["restored"].values[0, i, 0, 0, 1] == pytest.approx(want, abs=2e-5)
    # the begin token reads nothing of the subject
    np.testing.assert_allclose(found.indirect_effect.values.values[0, 1], 0, atol=2e-5)


def test_neighbours_of_one_kind_are_restored_together(model: Any) -> None:
    sites = [str(s) for s in model.sites("unet/**/cross_attn.out")]
    found = traced(model, sites, neighbours=3)
    clean, corrupted = ends(model)
    values = kept(model, clean, *sites)
    for i in range(len(sites)):
        together = sites[max(0, i - 1) : i + 2]
        want = run(model, corrupted[0], *(patch(s, values) for s in together))
        assert found.data["restored"].values[i, 0, 0, 0] == pytest.approx(want, abs=2e-5)
    mixed = traced(model, [sites[0], "unet/mid.attn.0.0/self_attn.out"], neighbours=3)
    alone = traced(model, sites[:1])
    np.testing.assert_allclose(mixed.data["restored"].values[:1], alone.data["restored"].values, atol=2e-5)


@pytest.mark.parametrize("source", ["trajectory", "in_place"])
def test_blocking_is_restoring_the_other_way_round(model: Any, source: str) -> None:
    """Clean but for the place, which is as in the corrupted run."""
    found = traced(model, OUT, source=source, direct=True)
    clean, corrupted = ends(model)
    if source == "trajectory":
        for d, prompt in enumerate(corrupted):
            want = run(model, clean, patch(OUT, kept(model, prompt, OUT)))
            assert found.data["blocked"].values[0, 0, 0, d] == pytest.approx(want, abs=2e-5)
    direct, total = found.direct_effect.values, found.clean - found.corrupted
    assert float(abs(direct - total).max()) > 1e-4
    necessary = (found.clean - found.data["blocked"]).mean() / total.mean()
    assert float(found.necessary.mean().squeeze()) == pytest.approx(float(necessary))
    with pytest.raises(ValueError, match="trace with direct=True"):
        _ = traced(model, OUT).direct_effect


def test_all_of_the_text_is_necessary_and_sufficient(model: Any) -> None:
    found = traced(model, "unet/in/text", direct=True)
    assert float(found.normalised.mean().squeeze()) == pytest.approx(1, abs=1e-3)
    assert float(found.necessary.mean().squeeze()) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found.direct_effect.values, 0, atol=2e-5)
    words = trace_text(
        model, ["a red cat"], "cat", metric=first_number, kinds=["resid.post"], layers=[1], direct=True,
        tokens=[range(32)], **HOW,
    )  # fmt: skip
    assert float(words.normalised.mean().squeeze()) == pytest.approx(1, abs=1e-3)
    assert float(words.necessary.mean().squeeze()) == pytest.approx(1, abs=1e-3)


def test_prompts_of_different_length_are_compared_by_role(model: Any) -> None:
    """Before, subject, after, end, padding; each as that prompt alone."""
    prompts = ["a red cat", "a cat and a mat"]
    how = {**HOW, "corruption": Swap("dog"), "metric": first_number, "tokens": "roles", "layers": [0]}
    found = trace_text(model, prompts, "cat", **how)
    assert found.data["token"].values.tolist() == ["before", "subject", "after", "end", "pad"]
    for i, prompt in enumerate(prompts):
        alone = trace_text(model, [prompt], "cat", **how)
        np.testing.assert_allclose(
            found.data["restored"].sel(token=alone.data["token"]).values[:, :, i],
            alone.data["restored"].values[:, :, 0],
            rtol=1e-4,  # texts are encoded in batches of other sizes, and guided by 3
        )
    # what a prompt has nothing of changes nothing
    after = found.indirect_effect.values.sel(token="after").values[0, 0]
    np.testing.assert_allclose(after, 0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": [0], "windows": [[0]]}, "windows and heads are given; restore by one of them"),
        ({"heads": [5]}, "has heads 0 to 1, no 5"),
        ({"heads": []}, r"heads is \[\]; give at least one"),
        ({"heads": [0, 0]}, r"heads hold \(0,\) more than once"),
        ({"sites": OUT, "heads": [0]}, "none of heads; for heads choose sites like"),
        ({"heads": [0], "source": "in_place"}, "heads and tokens are restored from the clean run"),
        ({"neighbours": 0}, "neighbours is 0; 1 is each site alone"),
    ],
)
def test_places_that_there_are_not(model: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        traced(model, **{"sites": Z, **settings})
