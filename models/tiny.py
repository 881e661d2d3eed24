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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

Pipe = TypeVar("Pipe")
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def tiny_tokenizer(length: int = 32) -> CLIPTokenizer:
    """Return a CLIP tokenizer of single characters and a few whole words."""
    words = ("cat", "dog", "red", "emoji", "cook")
    chars = [chr(c) for c in range(33, 127)]
    merges, pieces = [], []
    for word in words:
        left = word[0]
        for i, char in enumerate(word[1:], 1):
            right = char + ("</w>" if i == len(word) - 1 else "")
            if (left, right) not in merges:
                merges.append((left, right))
                pieces.append(left + right)
            left += right
    names = list(dict.fromkeys([*chars, *(c + "</w>" for c in chars), *pieces, *SPECIAL]))
    given: Any = merges  # pairs, whatever the annotation says
    return CLIPTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=given, model_max_length=length)


def tiny_sd(seed: int = 0, prediction_type: str = "epsilon", text_layers: int = 2) -> StableDiffusionPipeline:
    """Return a random Stable Diffusion pipeline: 16x16 pictures, 8x8 latents, 32 tokens."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=text_layers,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return _quiet(
        StableDiffusionPipeline(
            vae=_tiny_vae(),
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
    return _quiet(DDPMPipeline(unet=_tiny_unet2d(seed), scheduler=DDPMScheduler()))


def tiny_ddim(seed: int = 0) -> DDIMPipeline:
    """Return a random unconditional pipeline with the DDIM scheduler, 8x8 pictures."""
    return _quiet(DDIMPipeline(unet=_tiny_unet2d(seed), scheduler=DDIMScheduler()))


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


def _tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[8, 8],
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
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


def _quiet(made: Pipe) -> Pipe:
    pipe: Any = made
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
    pipe.set_progress_bar_config(disable=True)
    return made
