"""Adapter: unconditional pixel-space UNet2DModel (diffusers' DDPMPipeline and DDIMPipeline)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from ..run.prediction import Steps
from ..text.prompt import Prompt
from ._images import from_pipeline
from ._unet import UNetModel


class Unconditional(UNetModel):
    """A denoiser that reads no prompt; prompts are empty strings, guidance does nothing."""

    conditional = False
    other_schedulers = {}  # each of the two pipelines is made for its own

    def _checked_size(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        if size not in (None, self.native_size):
            raise UsageError(f"size is {size}; {self.name} paints {self.native_size} only")
        return self.native_size

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        for text in texts:
            if text:
                raise UsageError(
                    f"{self.name} reads no prompt, but got {text!r}; leave prompts out, or give ''"
                )
        return [Prompt("", (), embeds=torch.zeros(0, 0))] * len(texts)

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:  # noqa: ARG002
        """The UNet's output for network inputs x [sample, channel, height, width]."""
        out: Tensor = self.denoiser(x, self.time(step), return_dict=False)[0]
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1; there is no autoencoder."""
        return (latents / 2 + 0.5).clamp(0, 1)

    @property
    def image_channels(self) -> int:
        """Channels of the pictures."""
        return int(self.pipe.unet.config.in_channels)

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:  # noqa: ARG002 - nothing is drawn
        return images.to(self.device, self.dtype)

    def run_pipeline(
        self,
        prompts: Sequence[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,  # noqa: ARG002
    ) -> Tensor:
        """Pictures from the pipeline itself, which knows neither prompts nor guidance."""
        return from_pipeline(self.pipe, len(prompts), generators, steps)
