"""What adapters of diffusion-transformer pipelines share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Model
from ..site import Site
from ._images import decoded, encoded


class TransformerModel(Model):
    """A pipeline whose denoiser is ``pipe.transformer``, which reads patches of latents."""

    @property
    def denoiser(self) -> nn.Module:
        """The transformer."""
        transformer: nn.Module = self.live.network or self.pipe.transformer
        return transformer

    @property
    def input_site(self) -> Site:
        """Where the noisy latents enter: the patch embedding."""
        return Site("transformer/in/patch.out")

    @property
    def pixels_per_latent(self) -> int:
        """How many times the autoencoder shrinks the side of a picture."""
        return int(2 ** (len(self.pipe.vae.config.block_out_channels) - 1))

    @property
    def native_size(self) -> tuple[int, ...]:
        """Height and width of the pictures the transformer was made for, in pixels."""
        side = int(self.pipe.transformer.config.sample_size) * self.pixels_per_latent
        return (side, side)

    @property
    def size_unit(self) -> int:
        """Sides are multiples of one patch, and of 8 pixels as the pipelines ask."""
        patch = int(self.pipe.transformer.config.patch_size) * self.pixels_per_latent
        return max(patch, 8)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height and width of what is denoised."""
        config: Any = self.pipe.transformer.config
        height, width = self.size
        return (config.in_channels, height // self.pixels_per_latent, width // self.pixels_per_latent)

    @property
    def token_grid(self) -> tuple[int, int]:
        """Height and width of the picture in tokens."""
        patch = int(self.pipe.transformer.config.patch_size)
        height, width = self.picture_grid
        return (height // patch, width // patch)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the VAE."""
        return decoded(self.pipe.vae, latents)

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return encoded(self.pipe.vae, images, self.dtype, generators)
