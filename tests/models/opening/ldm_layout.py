"""Write a diffusers Stable Diffusion pipeline in the layout of its original code."""

from typing import Any

from safetensors.torch import save_file

from denoscope.models.opening.ldm_keys import unet_state, vae_state
from denoscope.models.opening.text_keys import clip_state


def write_ldm(pipe: Any, path: Any) -> None:
    """Write UNet, autoencoder and text encoder into one safetensors file."""
    write(
        path,
        {
            "model.diffusion_model": unet_state(pipe.unet),
            "first_stage_model": vae_state(pipe.vae),
            "cond_stage_model.transformer": clip_state(pipe.text_encoder),
        },
    )


def write(path: Any, parts: dict[str, dict[str, Any]]) -> None:
    """Write weights by place and name into one safetensors file."""
    flat = {f"{place}.{k}": v for place, state in parts.items() for k, v in state.items()}
    save_file({k: v.detach().contiguous().clone() for k, v in flat.items()}, path)
