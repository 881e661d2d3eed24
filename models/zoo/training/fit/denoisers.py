"""The denoisers to train, in diffusers' standard classes: three that read text, and one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from .training import Network

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""For ``DDIMScheduler``, with v-prediction."""

PURE_NOISE: dict[str, Any] = SCHEDULE | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""The same, ending in pure noise and sampled from there (Lin et al. 2024, "Common diffusion noise schedules
and sample steps are flawed"): else a run starts from noise of mean zero, which training never showed."""


@dataclass(frozen=True)
class Text:
    """What encoders say about captions.

    Attributes:
        states: ``[sample, token, width]``.
        mask: which tokens are no padding, ``[sample, token]``.
        pooled: the caption as a whole, ``[sample, width]``, for denoisers that read it.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor | None = None


def new_unet(channels: tuple[int, ...] = (64, 96, 192), states: int = 128) -> Network:
    """A small UNet with cross-attention in every block, as Stable Diffusion's."""
    blocks = len(channels)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * blocks,
        up_block_types=("CrossAttnUpBlock2D",) * blocks,
        cross_attention_dim=states,
        attention_head_dim=tuple(c // 32 for c in channels),
        norm_num_groups=16,
        use_linear_projection=True,
    )


def _patches(layers: int, heads: int, width: int) -> dict[str, int]:
    """Arguments that transformers over 2 x 2 patches of the latents share."""
    blocks = {"num_layers": layers, "num_attention_heads": heads, "attention_head_dim": width}
    return {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, **blocks}


def new_transformer(layers: int = 8, heads: int = 4, width: int = 64, states: int = 128) -> Network:
    """A small diffusion transformer with cross-attention in every block, as PixArt's.

    It starts as DiT does (Peebles and Xie 2023): every block passes its input on, the output is zero.
    """
    transformer: Network = PixArtTransformer2DModel(
        **_patches(layers, heads, width),
        cross_attention_dim=heads * width,
        caption_channels=states,
        use_additional_conditions=False,
    )
    _start_linear(transformer)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)
        nn.init.zeros_(block.scale_shift_table)
    for last in (transformer.adaln_single.linear, transformer.proj_out):
        nn.init.zeros_(last.weight)
    return transformer


def new_joint_transformer(layers: int = 6, heads: int = 4, width: int = 64, states: int = 128) -> Network:
    """A small transformer in which picture and text attend to each other, as Stable Diffusion 3's.

    Args:
        layers: blocks.
        heads: of attention.
        width: of a head.
        states: width of the text encoder, which is read twice, side by side.

    It starts as DiT does: every block passes its input on, the output is zero.
    """
    transformer: Network = SD3Transformer2DModel(
        **_patches(layers, heads, width),
        caption_projection_dim=heads * width,
        joint_attention_dim=2 * states,
        pooled_projection_dim=2 * states,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    _start_linear(transformer)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1_context.linear.weight)
    for last in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(last.weight)
    return transformer


def _start_linear(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def new_plain_unet(channels: tuple[int, ...] = (48, 96, 144), side: int = 32) -> Network:
    """A small UNet on pixels that reads no text, as the one of DDPM (Ho et al. 2020)."""
    inner = len(channels) - 1
    return UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", *("AttnDownBlock2D",) * inner),
        up_block_types=(*("AttnUpBlock2D",) * inner, "UpBlock2D"),
        attention_head_dim=channels[0],
        norm_num_groups=16,
    )


def predicted(denoiser: nn.Module, noisy: Tensor, times: Tensor, text: Text | None) -> Tensor:
    """What a denoiser says of noisy inputs ``[sample, channel, height, width]`` at ``times`` ``[sample]``."""
    if text is None:
        out = denoiser(noisy, times)
    elif isinstance(denoiser, PixArtTransformer2DModel):
        out = denoiser(
            noisy,
            timestep=times,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )
    elif isinstance(denoiser, SD3Transformer2DModel):
        out = denoiser(
            noisy, timestep=times, encoder_hidden_states=text.states, pooled_projections=text.pooled
        )
    else:
        out = denoiser(noisy, times, encoder_hidden_states=text.states)
    said: Tensor = out.sample
    return said
