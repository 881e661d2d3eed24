"""Adapter: Sana (transformer with linear self-attention and cross-attention, Gemma 2, flow matching)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from diffusers import SanaPipeline
from torch import Tensor

from ..run.noise import gaussian
from ..run.prediction import Steps
from ..text.encoders import chosen
from ..text.prompt import Prompt
from ._images import decoded, encoded, from_text_pipeline
from ._transformer import TransformerModel

_OF_THE_PIPELINE = inspect.signature(SanaPipeline.__call__).parameters


class Sana(TransformerModel):
    """diffusers' SanaPipeline, opened.

    Text is read in lower case, after an instruction to describe it more fully, which the unconditional branch
    does not get. The transformer reads the start token and the last tokens alone, so nearly nothing of
    the instruction itself. Latents are float32 whatever the transformer computes in. Pictures have the size
    asked for; the pipeline's own binning of sizes is left out.
    """

    family_guidance = 4.5
    other_schedulers = {
        "FlowMatchEulerDiscreteScheduler": {},
        "UniPCMultistepScheduler": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    }
    text_tokens = 300
    instruction: Sequence[str] = _OF_THE_PIPELINE["complex_human_instruction"].default

    @property
    def time_scale(self) -> float:  # type: ignore[override]  # it depends on the checkpoint
        """How many of the scheduler's times are one of what the network is told."""
        return 1 / float(self.pipe.transformer.config.timestep_scale)

    @property
    def pixels_per_latent(self) -> int:
        """How many times the autoencoder shrinks the side of a picture."""
        return int(self.pipe.vae_scale_factor)

    @property
    def size_unit(self) -> int:
        """Sides are multiples of 32 pixels, as the pipeline asks, and of one patch."""
        return max(super().size_unit, 32)

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        told = self.call is not None and "uncond" not in self.call.rows
        before = "\n".join(self.instruction) if told else ""
        n = self.text_tokens
        limit = n + len(self.pipe.tokenizer.encode(before)) - 2 if before else n
        reading = self._read("text_encoder", texts, limit, lower=True, before=before, side="right")
        mask = reading.mask.to(self.device)
        states = self.pipe.text_encoder(reading.ids.to(self.device), attention_mask=mask)[0]
        kept = [0, *range(limit - n + 1, limit)]
        prompts = []
        for words, embeds, known in zip(
            reading.words, states.to(self.dtype)[:, kept], mask[:, kept], strict=True
        ):
            own = chosen(words, kept)
            given = {"text_encoder": words}
            prompts.append(
                Prompt(own.text, own.tokens, own.spans, own.unknown, embeds=embeds, mask=known, read=given)
            )
        return prompts

    def _draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        return gaussian(generators, self.latent_shape, torch.float32).to(self.device)

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The transformer's output, eps - x_0, for inputs x [sample, channel, height, width], in float32."""
        out: Tensor = self.denoiser(
            x.to(self.dtype),
            encoder_hidden_states=torch.stack([p.embeds for p in prompts]),
            encoder_attention_mask=torch.stack([p.mask for p in prompts if p.mask is not None]),
            timestep=self.time(step, len(prompts)) * self.pipe.transformer.config.timestep_scale,
            return_dict=False,
        )[0]
        return out[:, : x.shape[1]].float()  # without learned variances

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1 from final latents, through the autoencoder."""
        return decoded(self.pipe.vae, latents.to(self.pipe.vae.dtype))

    def _encode_image(self, images: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return encoded(self.pipe.vae, images, torch.float32, generators)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from SanaPipeline itself."""
        return from_text_pipeline(
            self,
            prompts,
            generators,
            steps,
            guidance,
            use_resolution_binning=False,
            clean_caption=False,
            max_sequence_length=self.text_tokens,
            complex_human_instruction=list(self.instruction),
        )
