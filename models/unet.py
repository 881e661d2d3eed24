"""What adapters of UNet pipelines share."""

from __future__ import annotations

from torch import nn

from .base import Model


class UNetModel(Model):
    """A pipeline whose denoiser is ``pipe.unet``."""

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""
        unet: nn.Module = self.pipe.unet
        return unet

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height and width of what is denoised, at the model's native picture size."""
        config = self.pipe.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (config.in_channels, height, width)
