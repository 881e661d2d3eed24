"""What adapters of UNet pipelines share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..base import Model
from ._images import decoded, encoded


class UNetModel(Model):
    """A pipeline whose denoiser is ``pipe.unet``."""

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""
        unet: nn.Module = self.live.network or self.pipe.unet
        return unet

    @property
    def native_size(self) -> tuple[int, ...]:
        """Height and width of the pictures the UNet was made for, in pixels."""
        size = self.pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (height * self.pixels_per_latent, width * self.pixels_per_latent)

    @property
    def pixels_per_latent(self) -> int:
        """How many times an autoencoder shrinks the side of a picture; 1 without one."""
        return int(getattr(self.pipe, "vae_scale_factor", 1))

    @property
    def size_unit(self) -> int:
        """Sides are multiples of 8 pixels, as the pipelines ask."""
        return 8

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height and width of what is denoised."""
        height, width = self.size
        return (
            self.pipe.unet.config.in_channels,
            height // self.pixels_per_latent,
            width // self.pixels_per_latent,
        )

    @property
    def tells_guidance(self) -> bool:  # type: ignore[override]  # it depends on the checkpoint
        """Whether the UNet was distilled from guidance (Luo et al. 2023): it is told the scale."""
        return self.pipe.unet.config.get("time_cond_proj_dim") is not None

    def _told_guidance(self, x: Tensor) -> dict[str, Tensor]:
        """The scale as a UNet is told it that was distilled from guidance, [row, channel]; others are not."""
        if not self.tells_guidance:
            return {}
        scale = torch.tensor(self._told_scale() - 1).repeat(len(x))
        width = self.pipe.unet.config.time_cond_proj_dim
        said: Tensor = self.pipe.get_guidance_scale_embedding(scale, embedding_dim=width)
        return {"timestep_cond": said.to(device=self.device, dtype=x.dtype)}

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the VAE."""
        return decoded(self.pipe.vae, latents)

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return encoded(self.pipe.vae, images, self.dtype, generators)
