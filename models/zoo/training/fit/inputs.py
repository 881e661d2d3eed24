"""What a denoiser is trained on: latents and encoded captions, or small pictures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPTextModel, CLIPTokenizer

from ....opening.quiet import no_bars
from .denoisers import Text
from .training import Network


class Inputs(Protocol):
    """Turns pictures and captions into what a denoiser sees."""

    def to(self, device: torch.device) -> None:
        """Move frozen networks."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Clean inputs ``[n, channel, height, width]`` of pictures ``[n, 3, 64, 64]`` in 0..1."""

    def read(self, captions: Sequence[str]) -> Text | None:
        """What captions say, or None for a denoiser that reads none."""


@dataclass(frozen=True)
class Latents:
    """A frozen autoencoder and text encoder, as latent diffusion needs."""

    vae: Network
    text_encoder: Network
    tokenizer: CLIPTokenizer

    @classmethod
    def find(cls, places: Mapping[str, Path]) -> Latents:
        """Read vae, text_encoder and tokenizer from a folder for each."""
        with no_bars():
            vae = AutoencoderKL.from_pretrained(places["vae"], dtype=torch.float32, low_cpu_mem_usage=False)
            text_encoder = CLIPTextModel.from_pretrained(places["text_encoder"], dtype=torch.float32)
        for part in (vae, text_encoder):
            part.eval().requires_grad_(False)
        return cls(vae, text_encoder, CLIPTokenizer.from_pretrained(places["tokenizer"]))

    def to(self, device: torch.device) -> None:
        """Move autoencoder and text encoder."""
        self.vae.to(device)
        self.text_encoder.to(device)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents."""
        device = self.vae.device
        parts = [self.vae.encode(p.to(device) * 2 - 1).latent_dist.mean for p in pictures.split(64)]
        latents: Tensor = torch.cat(parts) * self.vae.config.scaling_factor
        return latents.contiguous()

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Text:
        """Last hidden states, and which tokens are not padding."""
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        device = self.text_encoder.device
        states: Tensor = self.text_encoder(tokens.input_ids.to(device)).last_hidden_state
        return Text(states, tokens.attention_mask.to(device))


@dataclass(frozen=True)
class JointLatents(Latents):
    """The same for Stable Diffusion 3's class, which is given the text encoder twice and no T5.

    As ``StableDiffusion3Pipeline`` encodes: the last but one layer, both side by side, then as many zeros as
    there are tokens (in T5's place); the pooled projections side by side.

    Args:
        projection: of the pooled state, ``[width, width]``.
    """

    projection: Tensor

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also in a process that made no text encoder, where transformers records no layers of one."""
        self.__dict__.update(state)
        with torch.device("meta"):
            type(self.text_encoder)(self.text_encoder.config)

    @classmethod
    def find(cls, places: Mapping[str, Path]) -> JointLatents:
        """Read vae, text_encoder, tokenizer and the projection (clip_text) from a place for each."""
        plain = Latents.find(places)
        projection = load_file(places["clip_text"])["weight"].float()
        return cls(plain.vae, plain.text_encoder, plain.tokenizer, projection)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Text:
        """States ``[sample, 2 token, 2 width]``, a mask of ones, as padding is read, and pooled states."""
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        device = self.text_encoder.device
        out = self.text_encoder(tokens.input_ids.to(device), output_hidden_states=True)
        states = torch.cat([out.hidden_states[-2]] * 2, -1)
        states = torch.cat([states, torch.zeros_like(states)], 1)
        pooled = out.pooler_output @ self.projection.to(device).T
        return Text(states, torch.ones(states.shape[:2], device=device), torch.cat([pooled] * 2, -1))


@dataclass(frozen=True)
class Pixels:
    """Small pictures in -1..1, for a denoiser without autoencoder and text."""

    side: int

    def to(self, device: torch.device) -> None:
        """Nothing to move."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures of ``side`` pixels."""
        return F.interpolate(pictures, (self.side, self.side), mode="area") * 2 - 1

    def read(self, captions: Sequence[str]) -> None:  # noqa: ARG002
        """No captions are read."""
