"""Configurations of published models, as diffusers pipelines; built on the meta device they cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from .published_text import BIG_CLIP, clip, gemma, t5
from .tiny_text import tiny_bert_tokenizer, tiny_gemma_tokenizer, tiny_t5_tokenizer, tiny_tokenizer

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def _sd15() -> Any:
    return _sd(_UNET, clip())


def _sd21() -> Any:
    heads = (5, 10, 20, 20)
    unet = {**_UNET, "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": heads}
    text = clip(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    return _sd({**unet, "use_linear_projection": True}, text, prediction_type="v_prediction")


def _sd(unet: dict[str, Any], text: Any, prediction_type: str = "epsilon") -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=text,
        tokenizer=tiny_tokenizer(77),
        unet=diffusers.UNet2DConditionModel(**unet),
        scheduler=_scheduler(
            diffusers.DDIMScheduler, prediction_type=prediction_type, clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True, **BIG_CLIP),
        tokenizer=tiny_tokenizer(77),
        tokenizer_2=tiny_tokenizer(77),
        unet=unet,
        scheduler=_scheduler(diffusers.EulerDiscreteScheduler, steps_offset=1),
        add_watermarker=False,
    )


def _pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=128, num_layers=28, caption_channels=4096, use_additional_conditions=False
    )
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tiny_t5_tokenizer(),
        text_encoder=t5(),
        vae=_vae(4),
        transformer=transformer,
        scheduler=_scheduler(diffusers.DDIMScheduler, clip_sample=False, steps_offset=1),
    )


def _sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=128,
        in_channels=16,
        out_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0),
        vae=_vae(16),
        text_encoder=clip(projected=True, projection_dim=768),
        tokenizer=tiny_tokenizer(77),
        text_encoder_2=clip(projected=True, **BIG_CLIP),
        tokenizer_2=tiny_tokenizer(77),
        text_encoder_3=t5(),
        tokenizer_3=tiny_t5_tokenizer(),
    )


def _flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        guidance_embeds=True
    )  # its defaults are those of FLUX.1 dev
    return diffusers.FluxPipeline(
        scheduler=_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
        vae=_vae(16),
        text_encoder=clip(),
        tokenizer=tiny_tokenizer(77),
        text_encoder_2=t5(),
        tokenizer_2=tiny_t5_tokenizer(),
        transformer=transformer,
    )


def _sana() -> Any:
    blocks = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
    return diffusers.SanaPipeline(
        tokenizer=tiny_gemma_tokenizer(),
        text_encoder=gemma(),
        vae=diffusers.AutoencoderDC(
            encoder_block_types=blocks, decoder_block_types=blocks, scaling_factor=0.41407
        ),
        transformer=diffusers.SanaTransformer2DModel(),  # its defaults are those of the 1.6B model
        scheduler=_scheduler(
            diffusers.DPMSolverMultistepScheduler,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=3.0,
        ),
    )


def _dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=32, out_channels=8
    )  # the rest: defaults of DiT-XL/2
    return diffusers.DiTPipeline(
        transformer=transformer, vae=_vae(4), scheduler=_scheduler(diffusers.DDIMScheduler, clip_sample=False)
    )


def _ldm() -> Any:
    bert = LDMBertModel(LDMBertConfig())  # its defaults are those of the published model
    unet = diffusers.UNet2DConditionModel(sample_size=32, cross_attention_dim=1280)
    return diffusers.LDMTextToImagePipeline(
        vqvae=_vae(4),
        bert=bert,
        tokenizer=tiny_bert_tokenizer(),
        unet=unet,
        scheduler=_scheduler(diffusers.DDIMScheduler, clip_sample=False),
    )


def _ddpm() -> Any:
    unet = diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    return diffusers.DDPMPipeline(unet=unet, scheduler=_scheduler(diffusers.DDPMScheduler))


def _scheduler(make: Callable[..., Any], **options: Any) -> Any:
    with torch.device("cpu"):  # its noise levels are real numbers
        return make(**options)


def _vae(channels: int) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=channels,
        sample_size=1024,
    )


PUBLISHED: dict[str, Callable[[], Any]] = {
    "sd-1.5": _sd15,
    "sd-2.1": _sd21,
    "sdxl": _sdxl,
    "pixart-sigma": _pixart,
    "sd3-medium": _sd3,
    "flux-dev": _flux,
    "sana-1.6b": _sana,
    "dit-xl-2": _dit,
    "ldm-text2im": _ldm,
    "ddpm-cifar10": _ddpm,
}
"""Configurations as published with the weights."""
