"""Adapter: Stable Diffusion 1.x and 2.x (UNet, one CLIP text encoder; epsilon and v prediction)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..arguments import checked
from ..places.hooks import suspended
from ..run.prediction import Steps
from ..text.encoders import Reading, chunks_needed, clip, joined, read_chunks
from ..text.options import LongPrompts, skipped_layer
from ..text.prompt import Prompt
from ._images import from_text_pipeline
from ._unet import UNetModel


class StableDiffusion(UNetModel):
    """diffusers' StableDiffusionPipeline, opened."""

    def _encode(
        self, texts: Sequence[str], *, clip_skip: int | None = None, long_prompts: LongPrompts = "error"
    ) -> list[Prompt]:
        tokenizer = self.pipe.tokenizer
        if long_prompts == "error":
            readings = [self._read("text_encoder", texts, tokenizer.model_max_length)]
        else:  # a call of the encoder for each chunk, so that its rows are the texts
            n = chunks_needed(tokenizer, texts) if isinstance(long_prompts, str) else long_prompts
            readings = read_chunks(tokenizer, texts, n, self.name)
        embeds = torch.cat([self._states(r, clip_skip) for r in readings], 1)
        words = [joined(text, [r.words[i] for r in readings]) for i, text in enumerate(texts)]
        return [
            Prompt(w.text, w.tokens, w.spans, w.unknown, embeds=e) for w, e in zip(words, embeds, strict=True)
        ]

    @checked
    def layers_read(self, clip_skip: int | None = None) -> Mapping[str, int]:
        """How many layers of the text encoder the UNet reads, where some are left out."""
        if not clip_skip or self.pipe.text_encoder is None:
            return {}
        layers: int = self.pipe.text_encoder.config.num_hidden_layers
        return {"text_encoder": layers - clip_skip}

    def _states(self, reading: Reading, clip_skip: int | None) -> Tensor:
        encoder = self.pipe.text_encoder
        self.live.reading("text_encoder", reading.words)
        out = clip(encoder, reading, self.device, hidden=bool(clip_skip))
        states: Tensor = out[0]
        if clip_skip:
            tower = getattr(encoder, "text_model", encoder)  # transformers 5 has one level less
            with suspended(tower.final_layer_norm):  # its site is the encoder's own call
                states = tower.final_layer_norm(skipped_layer(out.hidden_states, clip_skip, last=1))
        return states.to(self.dtype)

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The UNet's output (epsilon or v) for network inputs x [sample, channel, height, width]."""
        embeds = torch.stack([p.embeds for p in prompts])
        out: Tensor = self.denoiser(
            x,
            self.time(step),
            encoder_hidden_states=embeds,
            **self._told_guidance(x),
            return_dict=False,
        )[0]
        return out

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from StableDiffusionPipeline itself."""
        return from_text_pipeline(self, prompts, generators, steps, guidance)
