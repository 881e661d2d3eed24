"""Adapter: class-conditional diffusion transformers (DiT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NotFoundError, UsageError
from ..run.prediction import Steps
from ..run.schedule import UNSCALED
from ..suggest import near
from ..text.prompt import Prompt
from ._images import from_pipeline, painted
from ._transformer import TransformerModel


class DiT(TransformerModel):
    """diffusers' DiTPipeline, opened; a prompt is the name or the number of a class.

    The unconditional branch reads the extra class that stands for "no class", and lies after the conditional
    one in the batch.
    """

    family_guidance = 4.0
    branch_order = ("cond", "uncond")
    other_schedulers = UNSCALED

    @property
    def classes(self) -> dict[str, int]:
        """Numbers of the classes by name: all of their names, where a class has several."""
        return dict(self.pipe.labels) or {
            str(i): i for i in range(self.pipe.transformer.config.num_embeds_ada_norm)
        }

    def _checked_size(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        if size not in (None, self.native_size):
            raise UsageError(f"size is {size}; {self.name} paints {self.native_size} only")
        return self.native_size

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        return [_prompt(text, self._number(text)) for text in texts]

    def _number(self, text: str) -> int:
        if text == "":
            return int(self.pipe.transformer.config.num_embeds_ada_norm)
        if text in self.classes:
            return self.classes[text]
        if text.isdecimal() and int(text) < self.pipe.transformer.config.num_embeds_ada_norm:
            return int(text)
        raise NotFoundError(f"{self.name} has no class {text!r}; {near(text, self.classes)}")

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The predicted noise for inputs x [sample, channel, height, width], without learned variances."""
        labels = torch.cat([p.embeds[0] for p in prompts]).to(self.device, torch.int64)
        out: Tensor = self.denoiser(
            x, timestep=self.time(step, len(prompts)), class_labels=labels, return_dict=False
        )[0]
        return out[:, : x.shape[1]]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the VAE."""
        return painted(self.pipe.vae, 1 / self.pipe.vae.config.scaling_factor * latents)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from DiTPipeline itself."""
        numbers = [self._number(p) for p in prompts]
        return from_pipeline(self.pipe, numbers, generators, steps, guidance_scale=guidance)


def _prompt(text: str, number: int) -> Prompt:
    """A class as a Prompt: one token, whose embedding is the number of the class."""
    return Prompt(text, (text,), ((0, len(text)),), embeds=torch.tensor([[float(number)]]))
