"""Adapter: latent diffusion's own text-to-image model (UNet, its BERT), the ancestor of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..run.schedule import UNSCALED
from ..text.prompt import Prompt
from ._images import encoded, painted
from .stable_diffusion import StableDiffusion

_TOKENS = 77


class LatentDiffusion(StableDiffusion):
    """diffusers' LDMTextToImagePipeline, opened; its ``bert`` goes by the name ``text_encoder``."""

    family_guidance = 6.0
    other_schedulers = UNSCALED

    def _parts(self) -> Mapping[str, Any]:
        renamed = {"bert": "text_encoder", "vqvae": "vae"}
        return {renamed.get(name, name): part for name, part in super()._parts().items()}

    @checked
    def layers_read(self, clip_skip: int | None = None) -> Mapping[str, int]:  # noqa: ARG002 - no choice here
        """How many layers of the text encoder the UNet reads: all."""
        return {}

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:  # type: ignore[override]  # no choices here
        reading = self._read("text_encoder", texts, _TOKENS)
        embeds = self.pipe.bert(reading.ids.to(self.device))[0].to(self.dtype)
        return [
            Prompt(w.text, w.tokens, w.spans, w.unknown, embeds=e)
            for w, e in zip(reading.words, embeds, strict=True)
        ]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the autoencoder."""
        return painted(self.pipe.vqvae, 1 / self.pipe.vqvae.config.scaling_factor * latents)

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return encoded(self.pipe.vqvae, images, self.dtype, generators)
