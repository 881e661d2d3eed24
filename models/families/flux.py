"""Adapter: FLUX.1 dev and schnell (double and single blocks, CLIP and T5, flow matching)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..run.noise import gaussian
from ..run.prediction import Steps
from ..run.schedule import Schedule, begin, flow_shift
from ..text.encoders import clip
from ..text.prompt import Prompt
from ._images import decoded, from_text_pipeline
from ._transformer import TransformerModel


class Flux(TransformerModel):
    """diffusers' FluxPipeline, opened.

    FLUX.1 dev was distilled from guidance: the scale is told to the network, and there is one row for each
    sample. Schnell knows no scale. Both can be guided in truth besides (``true_cfg_scale`` above 1): then
    the unconditional branch runs as a second pass after the conditional one.

    Latents are packed: [sample, token, channel], two by two latent pixels in a token.
    """

    family_guidance = 3.5
    t5_tokens = 512
    tells_guidance = True
    cfg_in_two_passes = True
    joint_order = ("txt", "img")
    time_scale = 1000.0

    @property
    def native_size(self) -> tuple[int, ...]:
        """Height and width that the pipeline takes by default, in pixels."""
        side = int(self.pipe.default_sample_size) * self.pixels_per_latent
        return (side, side)

    @property
    def size_unit(self) -> int:
        """Latent pixels are packed two by two."""
        return 2 * self.pixels_per_latent

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Tokens and channels of what is denoised."""
        channels, height, width = self._unpacked
        return (height // 2 * (width // 2), channels * 4)

    @property
    def _unpacked(self) -> tuple[int, int, int]:
        height, width = self.size
        side = self.pixels_per_latent
        return (self.pipe.transformer.config.in_channels // 4, height // side, width // side)

    @property
    def picture_grid(self) -> tuple[int, int]:
        """Height and width of the latents before they are packed."""
        return self._unpacked[1:]

    @property
    def token_grid(self) -> tuple[int, int]:
        """Height and width of the picture in tokens, of two by two latent pixels each."""
        height, width = self.picture_grid
        return (height // 2, width // 2)

    def _draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        channels, height, width = self._unpacked
        noise = gaussian(generators, self._unpacked, self.dtype).to(self.device)
        packed: Tensor = self.pipe._pack_latents(noise, len(noise), channels, height, width)
        return packed

    def _begin(self, schedule: Schedule) -> Any:
        options: dict[str, Any] = {"mu": flow_shift(self.scheduler, self.latent_shape[0], 1.15)}
        n = schedule.steps
        if n is not None and not schedule.own and not self.scheduler.config.get("use_flow_sigmas"):
            options["sigmas"] = np.linspace(1.0, 1 / n, n)
        scheduler = begin(self.scheduler, schedule, self.device, **options)
        scheduler.set_begin_index(0)
        return scheduler

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        short = self._read("text_encoder", texts, self.pipe.tokenizer_max_length, cut=True)
        pooled = clip(self.pipe.text_encoder, short, self.device).pooler_output.to(self.dtype)
        long = self._read("text_encoder_2", texts, self.t5_tokens)
        embeds = self.pipe.text_encoder_2(long.ids.to(self.device))[0].to(self.dtype)
        return [
            Prompt(
                w.text,
                w.tokens,
                w.spans,
                w.unknown,
                embeds=e,
                pooled=p,
                read={"text_encoder": s, "text_encoder_2": w},
            )
            for w, s, e, p in zip(long.words, short.words, embeds, pooled, strict=True)
        ]

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The transformer's output, eps - x_0, for packed inputs x [sample, token, channel].

        FLUX.1 dev is told the guidance of the call.

        Raises:
            StateError: outside a call, where nobody says which guidance FLUX.1 dev is told.
        """
        embeds, n = torch.stack([p.embeds for p in prompts]), len(prompts)
        _, height, width = self._unpacked
        with self.device:  # they are made there, not copied at each step
            grid = (height // 2, width // 2)
            places = self.pipe._prepare_latent_image_ids(n, *grid, self.device, embeds.dtype)
        out: Tensor = self.denoiser(
            hidden_states=x,
            timestep=self.time(step, n).to(x.dtype) / 1000,
            guidance=self._told_guidance(n),
            pooled_projections=torch.stack([p.pooled for p in prompts if p.pooled is not None]),
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=self.device, dtype=embeds.dtype),
            img_ids=places,
            return_dict=False,
        )[0]
        return out

    def _told_guidance(self, rows: int) -> Tensor | None:
        if not self.pipe.transformer.config.guidance_embeds:
            return None
        return torch.full((rows,), self._told_scale(), device=self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final packed latents, through the VAE."""
        unpacked = self.pipe._unpack_latents(latents, *self.size, self.pixels_per_latent)
        return decoded(self.pipe.vae, unpacked)

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        latents = super()._encode_image(images, generators)
        packed: Tensor = self.pipe._pack_latents(latents, len(latents), *latents.shape[1:])
        return packed

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from FluxPipeline itself."""
        given: dict[str, Any] = {"max_sequence_length": self.t5_tokens}
        if self.true_cfg_scale > 1:
            given.update(true_cfg_scale=self.true_cfg_scale, negative_prompt=[""] * len(prompts))
        return from_text_pipeline(self, prompts, generators, steps, guidance, **given)
