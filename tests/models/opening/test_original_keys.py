"""Original key layouts at full size, without a weight: diffusers' converters turn every name back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)

from denoscope.models.opening.ldm_keys import unet_key, unet_state, vae_state
from denoscope.models.opening.sd3_keys import sd3_state
from denoscope.models.opening.text_keys import open_clip_state
from denoscope.models.synthetic.sizes import full_size
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_sd3


def shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in state.items()}


# model -> number of weights in its published file, one that is there, and its name here
UNETS = {
    "sd-1.5": (
        686,
        "output_blocks.11.1.transformer_blocks.0.attn2.to_k",
        "up_blocks.3.attentions.2.",
    ),
    "sd-2.1": (686, "input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
    "sdxl": (1680, "output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
}


@pytest.mark.parametrize("name", UNETS)
def test_unets_and_autoencoders(name: str) -> None:
    pipe: Any = full_size(name).pipe
    count, old, new = UNETS[name]
    made = unet_state(pipe.unet)
    assert len(made) == len(pipe.unet.state_dict()) == count
    [found] = [k for k in pipe.unet.state_dict() if unet_key(k, pipe.unet) == f"{old}.weight"]
    assert found.startswith(new)
    placed = {f"model.diffusion_model.{k}": v for k, v in made.items()}
    back = convert_ldm_unet_checkpoint(placed, dict(pipe.unet.config))
    assert shapes(back) == shapes(pipe.unet.state_dict())
    vae = vae_state(pipe.vae)
    assert len(vae) == 248 and "decoder.up.0.block.2.conv2.weight" in vae
    back = convert_ldm_vae_checkpoint(
        {f"first_stage_model.{k}": v for k, v in vae.items()}, dict(pipe.vae.config)
    )
    assert shapes(back) == shapes(pipe.vae.state_dict())


def test_open_clip() -> None:
    pipe: Any = full_size("sdxl").pipe
    made, prefix = open_clip_state(pipe.text_encoder_2), "conditioner.embedders.1.model."
    assert made["transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    placed = {prefix + k: v for k, v in made.items()}
    back = convert_open_clip_checkpoint(pipe.text_encoder_2, placed, prefix)
    own = pipe.text_encoder_2.state_dict()
    assert shapes(back) == shapes(own)


def test_the_transformer_of_stable_diffusion_3() -> None:
    transformer: Any = full_size("sd3-medium").pipe.transformer
    made = sd3_state(transformer)
    assert {"joint_blocks.23.context_block.attn.qkv.weight", "pos_embed", "x_embedder.proj.weight"} <= set(
        made
    )
    back = convert_sd3_transformer_checkpoint_to_diffusers(dict(made))
    assert shapes(back) == shapes(transformer.state_dict())


@pytest.mark.parametrize(
    "name", ["time_embedding.cond_proj.weight", "down_blocks.0.motion_modules.0.norm.weight", "conv.weight"]
)
def test_a_weight_without_a_place_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"unet.{name} has no place in the original layout; export the pipeline"
    ):
        unet_key(name, tiny_sd().unet)


def test_a_weight_of_the_transformer_without_a_place_is_refused() -> None:
    transformer: Any = tiny_sd3().transformer
    transformer.transformer_blocks[0].gate = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="transformer.transformer_blocks.0.gate.weight has no place"):
        sd3_state(transformer)
