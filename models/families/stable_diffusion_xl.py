"""Adapter: Stable Diffusion XL, base and Turbo (UNet, two CLIP text encoders, micro-conditioning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..run.context import Branch
from ..run.prediction import Steps
from ..run.tables import table
from ..text.encoders import clip
from ..text.options import skipped_layer
from ..text.prompt import Prompt
from ..undo import Undo
from ._images import from_text_pipeline
from ._unet import UNetModel


class StableDiffusionXL(UNetModel):
    """diffusers' StableDiffusionXLPipeline, opened.

    The UNet reads, for each token, the last but one layer of both text encoders side by side, so what the
    last layer does counts only for the second encoder's pooled embedding (Podell et al. 2023, section 2.1).
    Turbo is the same with guidance 0 and few steps.
    """

    family_guidance = 5.0
    told_sizes = True

    def _encode(self, texts: Sequence[str], *, clip_skip: int | None = None) -> list[Prompt]:
        parts, readings = [], {}
        for suffix in ("", "_2"):
            encoder = f"text_encoder{suffix}"
            reading = self._read(encoder, texts, self._tokenizer(encoder).model_max_length)
            out = clip(getattr(self.pipe, encoder), reading, self.device, hidden=True)
            parts.append(skipped_layer(out.hidden_states, clip_skip or 0, last=2))
            readings[encoder] = reading.words
            pooled: Tensor = out[0]
        embeds = torch.cat(parts, -1).to(self.dtype)
        return [
            Prompt(
                text,
                readings["text_encoder"][i].tokens,
                readings["text_encoder"][i].spans,
                readings["text_encoder"][i].unknown,
                embeds=embeds[i],
                pooled=pooled[i],
                read={name: words[i] for name, words in readings.items()},
            )
            for i, text in enumerate(texts)
        ]

    @checked
    def layers_read(self, clip_skip: int | None = None) -> Mapping[str, int]:
        """How many layers of the first text encoder the UNet reads; the second's last one is read pooled."""
        if self.pipe.text_encoder is None:
            return {}
        layers: int = self.pipe.text_encoder.config.num_hidden_layers
        return {"text_encoder": layers - 1 - (clip_skip or 0)}

    def negative(
        self, texts: Sequence[str], branch: Branch = "uncond", samples: Sequence[int] = (), **how: Any
    ) -> list[Prompt]:
        """What the unconditional branch reads: zeros for no text, as the base model was trained."""
        prompts = super().negative(texts, branch, samples, **how)
        if any(texts) or not self.pipe.config.force_zeros_for_empty_prompt:
            return prompts
        return [
            replace(p, embeds=torch.zeros_like(p.embeds), pooled=torch.zeros_like(p.pooled))
            for p in prompts
            if p.pooled is not None
        ]

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The UNet's output for network inputs x [sample, channel, height, width]."""
        embeds = torch.stack([p.embeds for p in prompts])
        sizes = table(tuple(self._sizes(p) for p in prompts), self.device, embeds.dtype)
        pooled = torch.stack([p.pooled for p in prompts if p.pooled is not None])
        out: Tensor = self.denoiser(
            x,
            self.time(step),
            encoder_hidden_states=embeds,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
            **self._told_guidance(x),
            return_dict=False,
        )[0]
        return out

    def _sizes(self, prompt: Prompt) -> tuple[int, ...]:
        """Original size, crop from the top left, target size; by default the whole picture."""
        whole = {"original_size": self.size, "crops_coords_top_left": (0, 0), "target_size": self.size}
        return tuple(number for name, size in whole.items() for number in prompt.sizes.get(name, size))

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1; an autoencoder that overflows in half precision works in float32 meanwhile."""
        vae = self.pipe.vae
        if vae.dtype != torch.float16 or not vae.config.force_upcast:
            return super().decode(latents)
        with Undo() as undo:
            undo.add(partial(vae.to, torch.float16))
            vae.to(torch.float32)
            return super().decode(latents.float())

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        vae = self.pipe.vae
        kept = vae.dtype
        if kept == torch.float32 or not vae.config.force_upcast:
            return super()._encode_image(images, generators)
        with Undo() as undo:
            undo.add(partial(vae.to, kept))
            vae.to(torch.float32)  # as the img2img pipeline does, for bfloat16 too
            return super()._encode_image(images, generators)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from StableDiffusionXLPipeline itself."""
        return from_text_pipeline(self, prompts, generators, steps, guidance)
