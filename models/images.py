"""From latents to pictures, and pictures out of diffusers' own pipelines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Return pictures in 0..1 of latents [sample, channel, height, width]; differentiable.

    Latents are put back to the autoencoder's own scale first, in whichever way its configuration tells.
    """
    config = vae.config
    if getattr(config, "latents_mean", None) is not None and config.latents_std is not None:
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1).to(latents)
        deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1).to(latents)
        return painted(vae, latents * deviation / config.scaling_factor + mean)
    latents = latents / config.scaling_factor
    return painted(vae, latents + config.shift_factor if getattr(config, "shift_factor", None) else latents)


def painted(vae: Any, latents: Tensor) -> Tensor:
    """Return pictures in 0..1 of latents in the autoencoder's own scale."""
    images: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return (images / 2 + 0.5).clamp(0, 1)


def from_pipeline(
    pipe: Any, told: Any, generators: list[torch.Generator], steps: int, **options: Any
) -> Tensor:
    """Return pictures [sample, channel, height, width] in 0..1 that a diffusers pipeline makes."""
    images = pipe(told, generator=generators, num_inference_steps=steps, output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)
