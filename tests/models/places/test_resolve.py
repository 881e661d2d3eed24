"""Where sites lie: in the order of the network, each under one name, and told where they cannot be found."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers import AuraFlowTransformer2DModel, CogView4Transformer2DModel
from torch import nn

from denoscope.models.errors import UsageError
from denoscope.models.load import load, opened
from denoscope.models.places.hooks import hooked
from denoscope.models.places.resolve import resolve
from denoscope.models.synthetic import tiny, tiny_families


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (tiny.tiny_sd, "a cat"),
        (tiny.tiny_ddpm, ""),
        (tiny_families.tiny_flux, "a cat"),
        (tiny_families.tiny_sd3, "a cat"),
    ],
)
def test_sites_are_in_the_order_of_the_network(make, text):
    model, met = load(make()), []
    with torch.no_grad(), hooked(model, [(s, partial(lambda s, _: met.append(s), s)) for s in model.sites()]):
        next(model.sample([text], seeds=[0], steps=1, guidance=1.0))
    outs = [s for s in met if s.kind == "joint_attn.out"]  # SD3 makes the text's first, Flux the picture's
    assert [s for s in met if s not in outs] == [s for s in model.sites() if s not in outs]
    assert len(met) == len(set(met)) == len(model.sites())


def test_two_cross_attentions_of_a_block_have_two_names():
    """As in the x4 upscaler."""
    unet = UNet2DConditionModel(
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        only_cross_attention=(False, True),
        attention_head_dim=8,
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=8,
    )
    places = resolve({"unet": unet})
    block = "unet/down.1.attn.0.0"
    first, second = (
        places[s] for s in places if s.block == block[5:] and s.kind.endswith("cross_attn.probs")
    )
    assert {first.module, second.module} == {
        unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1,
        unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2,
    }


def test_denoisers_with_unknown_blocks_are_told():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "patch_size": 1}
    aura = AuraFlowTransformer2DModel(
        **sizes, num_mmdit_layers=1, num_single_dit_layers=1, joint_attention_dim=8, caption_projection_dim=16
    )
    cog = CogView4Transformer2DModel(**sizes, num_layers=1, text_embed_dim=8, time_embed_dim=8)
    for network in (aura, cog):
        try:
            places = resolve({"transformer": network})
        except UsageError as error:
            assert "are not at the names that are known" in str(error) and "_resolve()" in str(error)
        else:
            assert any(s.block not in ("in", "out") for s in places)
    with pytest.raises(
        UsageError, match=r"the sites of transformer, a Linear, .*no such blocks.*_resolve\(\)"
    ):
        resolve({"transformer": nn.Linear(2, 2)})


def test_a_family_is_not_taken_for_another_by_the_beginning_of_its_name():
    class Flux2Pipeline:
        pass

    with pytest.raises(ValueError, match="Flux2Pipeline is not supported"):
        opened(Flux2Pipeline())
    with pytest.raises(ValueError, match="Flux2Pipeline is not supported"):
        load(Flux2Pipeline())
