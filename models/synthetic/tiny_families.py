"""Random, tiny pipelines of the other families' real diffusers classes."""

from __future__ import annotations

import diffusers
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from .tiny import quiet, tiny_unet, tiny_vae
from .tiny_text import (
    tiny_bert_tokenizer,
    tiny_clip,
    tiny_gemma,
    tiny_gemma_tokenizer,
    tiny_t5,
    tiny_t5_tokenizer,
    tiny_tokenizer,
)


def tiny_sdxl(seed: int = 0) -> diffusers.StableDiffusionXLPipeline:
    """Return a random Stable Diffusion XL pipeline: 16x16 pictures, two text encoders."""
    torch.manual_seed(seed)
    first, second = tiny_tokenizer(), tiny_tokenizer()
    unet = tiny_unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=16 + 6 * 8,
        cross_attention_dim=32,
    )
    return quiet(
        diffusers.StableDiffusionXLPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_clip(first),
            text_encoder_2=tiny_clip(second, projection=16),
            tokenizer=first,
            tokenizer_2=second,
            unet=unet,
            scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
            add_watermarker=False,
        )
    )


def tiny_pixart_alpha(seed: int = 0, told_size: bool = False) -> diffusers.PixArtAlphaPipeline:
    """Return a random PixArt-alpha pipeline; ``told_size`` makes it one that is told the picture's size."""
    return quiet(diffusers.PixArtAlphaPipeline(**_pixart(seed, told_size)))


def tiny_pixart_sigma(seed: int = 0) -> diffusers.PixArtSigmaPipeline:
    """Return a random PixArt-Sigma pipeline."""
    return quiet(diffusers.PixArtSigmaPipeline(**_pixart(seed)))


def _pixart(seed: int, told_size: bool = False) -> dict[str, object]:
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=128 if told_size else 8,  # by which its pipeline knows
        num_layers=2,
        patch_size=2,
        attention_head_dim=12 if told_size else 8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        cross_attention_dim=24 if told_size else 16,
        out_channels=8,
        use_additional_conditions=told_size,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": tiny_t5(tokenizer),
        "vae": tiny_vae(),
        "transformer": transformer,
        "scheduler": diffusers.DPMSolverMultistepScheduler(),
    }


def tiny_sana(seed: int = 0) -> diffusers.SanaPipeline:
    """Return a random Sana pipeline: 32x32 pictures, Gemma 2, a deep-compression autoencoder."""
    torch.manual_seed(seed)
    tokenizer = tiny_gemma_tokenizer()
    transformer = diffusers.SanaTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
    )
    half = {
        "block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 8, 16),
        "layers_per_block": (1, 1, 1),
        "qkv_multiscales": ((), (), (5,)),
    }
    halves = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()}
    vae = diffusers.AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.41407, **halves)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return quiet(
        diffusers.SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny_gemma(tokenizer),
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
        )
    )


def tiny_sd3(seed: int = 0, shifting: bool = False) -> diffusers.StableDiffusion3Pipeline:
    """Return a random Stable Diffusion 3.5 pipeline: three text encoders, query-key norms, a dual block."""
    torch.manual_seed(seed)
    first, second, third = tiny_tokenizer(), tiny_tokenizer(), tiny_t5_tokenizer()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=4,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
        pos_embed_max_size=16,
    )
    return quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shifting),
            vae=_flow_vae(),
            text_encoder=tiny_clip(first, projection=16),
            tokenizer=first,
            text_encoder_2=tiny_clip(second, projection=16),
            tokenizer_2=second,
            text_encoder_3=tiny_t5(third, 32),
            tokenizer_3=third,
        )
    )


def tiny_flux(seed: int = 0, guidance_embeds: bool = True) -> diffusers.FluxPipeline:
    """Return a random FLUX.1 pipeline: dev, or without guidance embeddings schnell."""
    torch.manual_seed(seed)
    first, second = tiny_tokenizer(), tiny_t5_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance_embeds),
        vae=_flow_vae(),
        text_encoder=tiny_clip(first),
        tokenizer=first,
        text_encoder_2=tiny_t5(second),
        tokenizer_2=second,
        transformer=transformer,
    )
    vars(pipe)["default_sample_size"] = 8
    return quiet(pipe)


def tiny_dit(seed: int = 0) -> diffusers.DiTPipeline:
    """Return a random class-conditional DiT pipeline of 1,000 classes, some with names."""
    torch.manual_seed(seed)
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    )
    names = {0: "cat", 1: "red dog, hound", 2: "cook"}
    return quiet(
        diffusers.DiTPipeline(
            transformer=transformer, vae=tiny_vae(), scheduler=diffusers.DDIMScheduler(), id2label=names
        )
    )


def tiny_ldm(seed: int = 0) -> diffusers.LDMTextToImagePipeline:
    """Return a random latent-diffusion pipeline with its own BERT."""
    torch.manual_seed(seed)
    tokenizer = tiny_bert_tokenizer()
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=len(tokenizer),
            encoder_layers=2,
            encoder_ffn_dim=32,
            encoder_attention_heads=2,
            head_dim=8,
            d_model=16,
            max_position_embeddings=77,
        )
    )
    unet = tiny_unet()
    vae = tiny_vae(blocks=4)
    return quiet(
        diffusers.LDMTextToImagePipeline(
            vqvae=vae, bert=bert, tokenizer=tokenizer, unet=unet, scheduler=diffusers.DDIMScheduler()
        )
    )


def _flow_vae() -> object:
    return tiny_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
