"""Heads taken out: equal to a weight of zero, and only the head that works is missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import Scores, agreement, head_ablation, locate
from denoscope.analysis.metrics import Outcome
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3
from denoscope.probes.intervene import patch
from tests.analysis.mediation.test_mediation import height

Z = "unet/mid.attn.0.0/cross_attn.z"
HOW: dict[str, Any] = {"seeds": [0], "metric": height, "steps": 2, "guidance": 1.0}
ROUNDING = 2e-5


def said(model: Any, prompts: Any = ("a red cat",), **settings: Any) -> Scores:
    return head_ablation(model, list(prompts), **{**HOW, **settings})


def score(run: Any) -> float:
    return float(height(Outcome(run.latents, (), lambda x: x)))


def columns(model: Any, site: str, head: int) -> torch.Tensor:
    """The weights by which one head of two is heard, [channel, head's channel]."""
    weight = model.module(site.replace(".z", ".out")).weight
    half = weight.shape[1] // 2
    return weight[:, head * half : (head + 1) * half]


def test_by_zero_is_a_weight_of_zero() -> None:
    model = denoscope.load(tiny_sd())
    run = {"seeds": [0], "steps": 2, "guidance": 1.0}
    with torch.no_grad():
        columns(model, Z, 0).mul_(30)
    found, plain = said(model, by="zero", sites=Z), score(denoscope.trace(model, ["a red cat"], **run))
    with torch.no_grad():
        columns(model, Z, 0).zero_()
    want = plain - score(denoscope.trace(model, ["a red cat"], **run))
    assert found.values.shape == (1, 2, 1, 1)
    assert found.values[0, 0].item() == pytest.approx(want, abs=ROUNDING) and abs(want) > 10 * ROUNDING


def test_by_the_mean_is_the_mean_of_other_runs(tiny: Any) -> None:
    run = {"seeds": [0], "steps": 2, "guidance": 1.0}
    found = said(tiny, others=["a dog", "a bird", "a red cat"], sites=Z)  # the prompt itself is no other
    others = [denoscope.trace(tiny, [p], sites=Z, **run)[Z] for p in ("a dog", "a bird")]
    for head in (0, 1):
        put = patch(Z, sum(others) / 2, heads=[head])
        without = denoscope.trace(tiny, ["a red cat"], interventions=[put], **run)
        want = score(denoscope.trace(tiny, ["a red cat"], **run)) - score(without)
        assert found.values[0, head].item() == pytest.approx(want, abs=ROUNDING)
        assert abs(want) > 10 * ROUNDING
    among = said(tiny, ["a red cat", "a dog", "a bird"], sites=Z)
    np.testing.assert_allclose(among.values[:, :, 0], found.values[:, :, 0], atol=ROUNDING)


@pytest.mark.parametrize("planted", [(0, 1), (2, 0)])
def test_finds_the_only_head_that_is_heard(planted: tuple[int, int]) -> None:
    model = denoscope.load(tiny_sd())
    sites = [str(s) for s in model.sites("unet/**/cross_attn.z")]
    with torch.no_grad():
        for i, site in enumerate(sites):
            for head in (0, 1):
                columns(model, site, head).mul_(30 if (i, head) == planted else 0)
    for by in ("mean", "zero"):
        found = abs(said(model, by=by, others=["a dog"]).mean())
        assert found["site"].values.tolist() == sites
        assert float(found[planted]) > 20 * ROUNDING
        assert int((found > ROUNDING).sum()) == 1


@pytest.mark.parametrize("family", [tiny_pixart_alpha, tiny_sd3, tiny_flux])
def test_on_other_families(family: Any) -> None:
    model = denoscope.load(family())
    found = said(model, ["a red cat", "a dog"], steps=1, guidance=3.0)
    assert np.isfinite(found.values).all() and float(abs(found.values).max()) > 0
    assert set(found.values["site"].values) == {str(s)[:-5] + "z" for s in model.reading_sites()}
    assert found.plot("drop").data


def test_locate_takes_the_mean_over_the_prompts_without_the_subject(tiny: Any) -> None:
    by_name = locate(tiny, ["a red cat"], "red", method="head_ablation", sites=Z, **HOW)
    want = said(tiny, others=["a cat"], sites=Z)
    np.testing.assert_allclose(by_name.values, want.values, atol=ROUNDING)


def test_ranks_of_heads_are_compared(tiny: Any) -> None:
    found = said(tiny, by="zero")
    same = agreement(found, found)
    assert same["rank"] == pytest.approx(1) and same["sites"] == 8 and same["top"]
    assert agreement(found, Scores(-found.values))["rank"] == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"the scores are over \['site', 'head'\] and \['site'\]"):
        agreement(found, Scores(found.values.isel(head=0, drop=True)))


def test_heads_that_are_not_there_are_nan(tiny: Any) -> None:
    many = denoscope.load(tiny_sd())
    many.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.heads = 4
    found = said(many, by="zero").mean()
    assert np.isnan(found.sel(head=3)).sum() == 3 and not np.isnan(found.sel(site=Z)).any()


def test_what_cannot_be_ablated_is_told(tiny: Any) -> None:
    def fail(match: str, kind: Any = ValueError, model: Any = tiny, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            said(model, **settings)

    fail("no other prompt than 'a red cat'", sites=Z)
    fail("no other prompt than 'a red cat'", sites=Z, others=[])
    fail("by is 'median'", by="median")
    fail("is not what single heads say", by="zero", sites=Z.replace(".z", ".out"))
    fail("is not what single heads say", by="zero", sites=Z.replace(".z", ".q"))
    fail("not in the denoiser", by="zero", sites="text_encoder/layer.0/self_attn.z")
    fail("prompts hold 'a'", prompts=["a", "a"])
    fail("reads no words", LookupError, denoscope.load(tiny_ddpm()), by="zero", prompts=[""])
