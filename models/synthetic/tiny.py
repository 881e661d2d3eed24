"""Random, tiny pipelines of real diffusers classes: for tests and documentation, no downloads."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from .tiny_text import tiny_clip, tiny_tokenizer

Pipe = TypeVar("Pipe")


def tiny_sd(seed: int = 0, prediction_type: str = "epsilon", text_layers: int = 2) -> StableDiffusionPipeline:
    """Return a random Stable Diffusion pipeline: 16x16 pictures, 8x8 latents, 32 tokens."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    text = tiny_clip(tokenizer, text_layers)
    unet = tiny_unet()
    return quiet(
        StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=text,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=_ddim(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def tiny_ddpm(seed: int = 0) -> DDPMPipeline:
    """Return a random unconditional pipeline with the stochastic DDPM scheduler, 8x8 pictures."""
    return quiet(DDPMPipeline(unet=_tiny_unet2d(seed), scheduler=DDPMScheduler()))


def tiny_ddim(seed: int = 0) -> DDIMPipeline:
    """Return a random unconditional pipeline with the DDIM scheduler, 8x8 pictures."""
    return quiet(DDIMPipeline(unet=_tiny_unet2d(seed), scheduler=DDIMScheduler()))


def _ddim(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def tiny_unet(**options: Any) -> UNet2DConditionModel:
    """Return a random UNet with cross-attention in one of its two levels, for 8x8 latents."""
    own = {"cross_attention_dim": 16, "attention_head_dim": 2}
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **{**own, **options},
    )


def tiny_vae(blocks: int = 2, **options: Any) -> AutoencoderKL:
    """Return a random autoencoder; every block but the first halves the side of a picture."""
    return AutoencoderKL(
        block_out_channels=[8] * blocks,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        **options,
    )


def _tiny_unet2d(seed: int) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )


def quiet(made: Pipe) -> Pipe:
    """Return a pipeline ready for use: no dropout, no progress bars."""
    pipe: Any = made
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
    pipe.set_progress_bar_config(disable=True)
    return made
