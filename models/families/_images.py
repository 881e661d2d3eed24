"""From latents to pictures, and pictures out of diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..places.mode import evaluating

if TYPE_CHECKING:
    from ..base import Model


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


def encoded(
    vae: Any, images: Tensor, dtype: torch.dtype, generators: Sequence[torch.Generator] | None = None
) -> Tensor:
    """Return latents of pictures in -1..1 [sample, channel, height, width]: what ``decoded`` turns back.

    Args:
        vae: an autoencoder: variational, vector-quantised or deterministic.
        images: pictures in -1..1.
        dtype: number format of the latents.
        generators: one for each sample, to draw from the posterior; None takes its mode.
    """
    config, latents = vae.config, _posterior(vae, images, generators).to(dtype)
    if getattr(config, "latents_mean", None) is not None and config.latents_std is not None:
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1).to(latents)
        deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1).to(latents)
        made: Tensor = (latents - mean) * config.scaling_factor / deviation
        return made
    if getattr(config, "shift_factor", None):
        latents = latents - config.shift_factor
    scaled: Tensor = latents * config.scaling_factor
    return scaled


def _posterior(vae: Any, images: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """One picture after the other, so that a row depends on its own picture and generator alone."""
    rows = []
    device = next(vae.parameters()).device
    for i, row in enumerate(images.to(device, vae.dtype).split(1)):
        with evaluating(vae.modules()):
            out = vae.encode(row)
        if hasattr(out, "latent_dist"):
            posterior = out.latent_dist
            rows.append(posterior.mode() if generators is None else posterior.sample(generators[i]))
        else:  # deterministic autoencoders: DC-AE, and vector-quantised ones before they are rounded
            rows.append(out.latent if hasattr(out, "latent") else out.latents)
    return torch.cat(rows)


def painted(vae: Any, latents: Tensor) -> Tensor:
    """Return pictures in 0..1 of latents in the autoencoder's own scale."""
    with evaluating(vae.modules()):
        images: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return (images / 2 + 0.5).clamp(0, 1)


def from_pipeline(
    pipe: Any, told: Any, generators: list[torch.Generator], steps: int, **options: Any
) -> Tensor:
    """Return pictures [sample, channel, height, width] in 0..1 that a diffusers pipeline makes."""
    images = pipe(told, generator=generators, num_inference_steps=steps, output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def from_text_pipeline(
    model: Model,
    prompts: Sequence[str],
    generators: list[torch.Generator],
    steps: int,
    guidance: float,
    **options: Any,
) -> Tensor:
    """Return pictures that a model's own pipeline makes of texts, in the model's size."""
    height, width = model.size
    return from_pipeline(
        model.pipe,
        list(prompts),
        generators,
        steps,
        guidance_scale=guidance,
        height=height,
        width=width,
        **options,
    )
