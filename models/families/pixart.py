"""Adapter: PixArt-alpha and PixArt-Sigma (transformer with cross-attention, T5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..run.prediction import Steps
from ..run.tables import table
from ..text.prompt import Prompt
from ._images import from_text_pipeline
from ._transformer import TransformerModel

_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


class PixArt(TransformerModel):
    """diffusers' PixArtAlphaPipeline or PixArtSigmaPipeline, opened.

    Text is read in lower case. Its padding is masked, in the encoder and in every cross-attention. Pictures
    have the size asked for; the pipelines' own binning of sizes is left out.
    """

    family_guidance = 4.5
    text_tokens: int | None = None
    """How many tokens of text are read; None is what the pipeline reads by default."""

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        reading = self._read("text_encoder", texts, self._tokens, lower=True)
        mask = reading.mask.to(self.device)
        embeds = self.pipe.text_encoder(reading.ids.to(self.device), attention_mask=mask)[0].to(self.dtype)
        return [
            Prompt(w.text, w.tokens, w.spans, w.unknown, embeds=e, mask=m)
            for w, e, m in zip(reading.words, embeds, mask, strict=True)
        ]

    @property
    def _tokens(self) -> int:
        """How many tokens of text are read: T5 takes what the family reads, a shorter encoder fewer."""
        if self.text_tokens is not None:
            return self.text_tokens
        return min(_TOKENS[type(self.pipe).__name__], int(self.pipe.tokenizer.model_max_length))

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The predicted noise for inputs x [sample, channel, height, width], without learned variances."""
        out: Tensor = self.denoiser(
            x,
            encoder_hidden_states=torch.stack([p.embeds for p in prompts]),
            encoder_attention_mask=torch.stack([p.mask for p in prompts if p.mask is not None]),
            timestep=self.time(step, len(prompts)),
            added_cond_kwargs=self._micro_conditions(len(prompts)),
            return_dict=False,
        )[0]
        return out[:, : x.shape[1]]

    def _micro_conditions(self, rows: int) -> dict[str, Tensor | None]:
        """Picture size and shape, which the alpha model of 1024 pixels was trained to be told."""
        if not self.pipe.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = self.size
        told = {"resolution": (height, width), "aspect_ratio": (height / width,)}
        return {name: table((said,) * rows, self.device, self.dtype) for name, said in told.items()}

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """Pictures from the pipeline itself."""
        return from_text_pipeline(
            self,
            prompts,
            generators,
            steps,
            guidance,
            use_resolution_binning=False,
            clean_caption=False,
            max_sequence_length=self._tokens,
        )
