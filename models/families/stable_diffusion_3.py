"""Adapter: Stable Diffusion 3 and 3.5 (joint attention, two CLIP encoders and T5, flow matching)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..run.prediction import Steps
from ..run.schedule import Schedule, begin, flow_shift
from ..text.encoders import clip, joined
from ..text.prompt import Prompt, Words
from ._images import from_text_pipeline
from ._transformer import TransformerModel


class StableDiffusion3(TransformerModel):
    """diffusers' StableDiffusion3Pipeline, opened.

    The transformer reads the last but one layer of both CLIP encoders side by side, then T5's tokens. A
    pipeline without T5 (``text_encoder_3=None``) reads zeros in their place.
    """

    family_guidance = 7.0
    t5_tokens = 256

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        readings: dict[str, tuple[Words, ...]] = {}
        sides, pooled = [], []
        reads_on = self.pipe.text_encoder_3 is not None
        for suffix in ("", "_2"):
            encoder = f"text_encoder{suffix}"
            reading = self._read(encoder, texts, self.pipe.tokenizer_max_length, cut=reads_on)
            out = clip(getattr(self.pipe, encoder), reading, self.device, hidden=True)
            sides.append(out.hidden_states[-2])
            pooled.append(out[0])
            readings[encoder] = reading.words
        long = self._t5(texts, readings)
        short = torch.cat(sides, -1)
        embeds = torch.cat([F.pad(short, (0, long.shape[-1] - short.shape[-1])), long], 1).to(self.dtype)
        whole = torch.cat(pooled, -1).to(self.dtype)
        prompts = []
        for i, text in enumerate(texts):
            own = {name: words[i] for name, words in readings.items()}
            words = joined(text, [own["text_encoder"], own["text_encoder_3"]])
            prompts.append(
                Prompt(
                    text,
                    words.tokens,
                    words.spans,
                    words.unknown,
                    embeds=embeds[i],
                    pooled=whole[i],
                    read=own,
                )
            )
        return prompts

    def _t5(self, texts: Sequence[str], readings: dict[str, tuple[Words, ...]]) -> Tensor:
        encoder, n = self.pipe.text_encoder_3, self.t5_tokens
        if encoder is None:
            readings["text_encoder_3"] = tuple(Words(t, ("",) * n, ((0, 0),) * n) for t in texts)
            width = self.pipe.transformer.config.joint_attention_dim
            return torch.zeros(len(texts), n, width, device=self.device, dtype=self.dtype)
        reading = self._read("text_encoder_3", texts, n)
        readings["text_encoder_3"] = reading.words
        states: Tensor = encoder(reading.ids.to(self.device))[0]
        return states

    def _begin(self, schedule: Schedule) -> Any:
        if not self.scheduler.config.get("use_dynamic_shifting"):
            return begin(self.scheduler, schedule, self.device)
        _, height, width = self.latent_shape
        patch = self.pipe.transformer.config.patch_size
        tokens = (height // patch) * (width // patch)
        return begin(self.scheduler, schedule, self.device, mu=flow_shift(self.scheduler, tokens, 1.16))

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The transformer's output, eps - x_0, for inputs x [sample, channel, height, width]."""
        out: Tensor = self.denoiser(
            hidden_states=x,
            timestep=self.time(step, len(prompts)),
            encoder_hidden_states=torch.stack([p.embeds for p in prompts]),
            pooled_projections=torch.stack([p.pooled for p in prompts if p.pooled is not None]),
            return_dict=False,
        )[0]
        return out

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from StableDiffusion3Pipeline itself."""
        return from_text_pipeline(
            self, prompts, generators, steps, guidance, max_sequence_length=self.t5_tokens
        )
