"""Adapter: latent diffusion's own text-to-image model (UNet, its BERT), the ancestor of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .images import from_pipeline, painted
from .prompt import Prompt
from .text import read
from .time import Branch, Step
from .unet import UNetModel

_TOKENS = 77


class LatentDiffusion(UNetModel):
    """diffusers' LDMTextToImagePipeline, opened; its ``bert`` goes by the name ``text_encoder``."""

    family_guidance = 6.0
    pipeline_scales_noise = False

    def _parts(self) -> Mapping[str, Any]:
        renamed = {"bert": "text_encoder", "vqvae": "vae"}
        return {renamed.get(name, name): part for name, part in self.pipe.components.items()}

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        reading = read(self.pipe.tokenizer, texts, _TOKENS, self.name)
        embeds = self.pipe.bert(reading.ids.to(self.device))[0].to(self.dtype)
        return [
            Prompt(w.text, w.tokens, w.spans, embeds=e) for w, e in zip(reading.words, embeds, strict=True)
        ]

    def text_branch(self, ids: Tensor, nth: int) -> Branch:  # noqa: ARG002
        """What a call of the encoder inside the pipeline reads: the empty text comes first, if at all."""
        empty = read(self.pipe.tokenizer, [""], _TOKENS, self.name).ids
        return "uncond" if bool((ids.cpu() == empty).all()) else "cond"

    def predict(self, x: Tensor, step: Step, prompts: Sequence[Prompt]) -> Tensor:
        """The UNet's output for network inputs x [sample, channel, height, width]."""
        embeds = torch.stack([p.embeds for p in prompts])
        out: Tensor = self.denoiser(x, self.time(step), encoder_hidden_states=embeds, return_dict=False)[0]
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the autoencoder."""
        return painted(self.pipe.vqvae, 1 / self.pipe.vqvae.config.scaling_factor * latents)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from LDMTextToImagePipeline itself."""
        height, width = self.size
        return from_pipeline(
            self.pipe, list(prompts), generators, steps, guidance_scale=guidance, height=height, width=width
        )
