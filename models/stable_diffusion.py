"""Adapter: Stable Diffusion 1.x and 2.x (UNet, one CLIP text encoder; epsilon and v prediction)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .prompt import Prompt
from .time import Step
from .unet import UNetModel


class StableDiffusion(UNetModel):
    """diffusers' StableDiffusionPipeline, opened."""

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        limit = tokenizer.model_max_length
        for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
            if len(ids) > limit:
                lost = tokenizer.decode(ids[limit - 1 : -1])
                raise ValueError(
                    f"the prompt {text!r} has {len(ids)} tokens, {self.name} reads {limit}: "
                    f"{lost!r} would be cut off; shorten the prompt"
                )
        read = tokenizer(
            list(texts),
            padding="max_length",
            max_length=limit,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        uses_mask = getattr(encoder.config, "use_attention_mask", False)
        mask = read.attention_mask.to(self.device) if uses_mask else None
        embeds = encoder(read.input_ids.to(self.device), attention_mask=mask)[0].to(self.dtype)
        return [
            Prompt(t, tuple(tokenizer.convert_ids_to_tokens(i)), e, tuple((int(a), int(b)) for a, b in spans))
            for t, i, e, spans in zip(texts, read.input_ids, embeds, read.offset_mapping, strict=True)
        ]

    def predict(self, x: Tensor, step: Step, prompts: Sequence[Prompt]) -> Tensor:
        """The UNet's output (epsilon or v) for network inputs x [sample, channel, height, width]."""
        embeds = torch.stack([p.embeds for p in prompts])
        out: Tensor = self.denoiser(x, self._time(step), encoder_hidden_states=embeds, return_dict=False)[0]
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the VAE."""
        vae: Any = self.pipe.vae
        images: Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return (images / 2 + 0.5).clamp(0, 1)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from StableDiffusionPipeline itself."""
        images = self.pipe(
            list(prompts),
            generator=generators,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _time(self, step: Step) -> Tensor:
        whole = float(step.t).is_integer()
        return torch.tensor(step.t, dtype=torch.int64 if whole else torch.float32, device=self.device)
