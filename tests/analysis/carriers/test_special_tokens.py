"""Masses add up to what the picture gives the text, contributions to the whole output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from denoscope import Site, load, trace
from denoscope.analysis.carriers.special_tokens import _Look, special_tokens
from denoscope.models.errors import UsageError
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3

TEXTS = ["a red cat", "a dog"]
ASK: dict[str, Any] = {"seeds": [0, 1], "steps": 2, "guidance": 2.0}


@pytest.mark.parametrize("batch", [1, 4])
def test_masses_of_cross_attention_add_up_to_one(tiny: Any, batch: int) -> None:
    found = special_tokens(tiny, TEXTS, batch=batch, **ASK)
    assert np.allclose(found.mass.values.sum("kind"), 1, atol=1e-5)
    if batch == 1:
        whole = special_tokens(tiny, TEXTS, batch=4, **ASK)
        for name in ("mass", "value", "contribution"):
            one, other = getattr(found, name).values, getattr(whole, name).values
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", [tiny_sd3, tiny_flux])
def test_in_joint_attention_the_picture_looks_at_itself_too(family: Any) -> None:
    found = special_tokens(load(family()), TEXTS[:1], **ASK)
    mass = found.mass.values.sum("kind")
    assert float(mass.max()) < 1 and float(mass.min()) > 0
    assert all("joint_attn.probs" in s and "single" not in s for s in found.mass.values["site"].values)


def test_masked_padding_gets_nothing() -> None:
    found = special_tokens(load(tiny_pixart_alpha()), TEXTS, **ASK)
    assert float(found.mass.values.sel(kind="padding").max()) == 0
    assert float(found.contribution.values.sel(kind="padding").max()) == 0
    assert found.to_frame().loc["begin"].isna().any()  # T5 begins without a token


@torch.no_grad()
def test_where_the_begin_token_alone_is_looked_at_all_is_from_there(tiny: Any) -> None:
    site = Site("unet/mid.attn.0.0/cross_attn.probs")
    seen = trace(tiny, TEXTS[:1], seeds=[0], steps=1, sites=[site, str(site).replace("probs", "v")])
    v = seen[Site(str(site).replace("probs", "v"))][0, 0]
    only = torch.zeros_like(seen[site][0, 0])
    only[..., 0] = 1
    look = _Look(tiny, site, tiny.encode(TEXTS[:1]))
    mass, value, contribution = look._measured(only, v, look.masks[0].to(v))
    assert mass.tolist() == [1, 0, 0, 0] and contribution[1:].tolist() == [0, 0, 0]
    assert float(contribution[0]) == pytest.approx(1)
    lengths = v.square().sum((0, 2)).sqrt()
    assert float(value[0]) == pytest.approx(float(lengths[0] / lengths.mean()))


def test_sites_without_text_are_refused(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"self_attn.probs the picture does not read text"):
        special_tokens(tiny, TEXTS, sites="unet/mid.attn.0.0/self_attn.probs", **ASK)
