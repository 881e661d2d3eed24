"""An intervention and the edit made of it agree, wherever weights can do the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope import Direction, Intervention, When
from denoscope.editing import freeze
from denoscope.models.synthetic.tiny import tiny_sd
from tests.dictionaries import doubled

ALWAYS = When(branch=None)
SITES = (
    "unet/mid.attn.0.0/cross_attn.out",  # a linear layer with bias
    "unet/down.0.res.0/resnet.out",  # a convolution
    "text_encoder/layer.1/mlp.out",
    "unet/mid.attn.0.0/cross_attn.v_proj",  # one without bias
)


@pytest.fixture(scope="module")
def model() -> Any:
    """Biases that are not zero, so that they count; exact enough for what little one projection does."""
    model = denoscope.load(tiny_sd().to(dtype=torch.float64))
    with torch.no_grad():
        for part in ("unet", "text_encoder"):
            for name, p in model.components[part].named_parameters():
                if name.endswith("bias"):
                    p.normal_(generator=torch.Generator().manual_seed(len(name)))
    return model


def along(model: Any, site: str, seed: int = 0) -> Direction:
    channels = len(model.place(site).module.weight)
    return Direction(site, torch.randn(channels, generator=torch.Generator().manual_seed(seed)))


def painted(model: Any, *interventions: Intervention) -> Tensor:
    return denoscope.trace(
        model, ["a cat"], seeds=[0], steps=2, guidance=4.0, interventions=interventions
    ).latents


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("does", ["steer", "ablate"])
def test_hook_equals_weights(model: Any, site: str, does: str) -> None:
    d = along(model, site)
    if does == "steer" and site.endswith("v_proj"):
        with pytest.raises(ValueError, match="has no bias that could hold the steering"):
            freeze(model, d.steer(0.7, ALWAYS))
        return
    act = d.steer(0.7, ALWAYS) if does == "steer" else d.ablate(ALWAYS)
    plain, hooked = painted(model), painted(model, act)
    with freeze(model, act).applied(model):
        frozen = painted(model)
    assert (frozen - hooked).abs().max() < 1e-6 * (hooked - plain).abs().max()


def test_several_sites_at_once(model: Any) -> None:
    acts = [along(model, site, i).ablate(ALWAYS) for i, site in enumerate(SITES)]
    hooked = painted(model, *acts)
    with freeze(model, acts).applied(model):
        torch.testing.assert_close(painted(model), hooked, rtol=0, atol=1e-4)


def test_what_weights_cannot_do_is_refused(model: Any) -> None:
    d, residual = along(model, SITES[0]), Direction("unet/mid.res.0/resid.post", torch.ones(32))
    with pytest.raises(ValueError, match=r"on some steps, branches or samples alone .*branch='cond'"):
        freeze(model, d.steer(1.0))
    with pytest.raises(ValueError, match=r"make it with when=When\(branch=None\)"):
        freeze(model, d.ablate(When(steps=[0], branch=None)))
    with pytest.raises(ValueError, match="is no steering or ablation along a direction"):
        freeze(model, Intervention(SITES[0], lambda x, _: 2 * x, ALWAYS))
    with pytest.raises(ValueError, match=r"resid.post is not the output of one linear layer"):
        freeze(model, residual.steer(1.0, ALWAYS))
    with pytest.raises(ValueError, match="two interventions change"):
        freeze(model, [d.steer(1.0, ALWAYS), d.ablate(ALWAYS)])
    with pytest.raises(ValueError, match="interventions is empty"):
        freeze(model, [])


def test_features_that_are_added_freeze_and_others_are_refused(model: Any) -> None:
    features = doubled(model, SITES[0])
    act = features.edit([3, 20], add=[2.0, 1.0], branch=None)
    plain, hooked = painted(model), painted(model, act)
    with freeze(model, act).applied(model):
        frozen = painted(model)
    assert (frozen - hooked).abs().max() < 1e-3 * (hooked - plain).abs().max()  # features are in float32
    for other in ({"scale": 0.0}, {"set": 1.0}):
        with pytest.raises(ValueError, match="depends on which are on, and no weight does that"):
            freeze(model, features.edit(3, branch=None, **other))
