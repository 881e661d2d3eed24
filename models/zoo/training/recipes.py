"""How each embedded model is made: which denoiser on which pictures, and which pipeline it ships as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .data import world
from .data.pictures import Pictures
from .data.sampling import Mix
from .fit.denoisers import PURE_NOISE, new_joint_transformer, new_plain_unet, new_transformer, new_unet
from .fit.inputs import Inputs, JointLatents, Latents, Pixels
from .fit.objectives import Flow, Objective, Velocity
from .fit.training import Network
from .parts import JUDGES, LATENT

TOKENS = 24
"""How many tokens the text encoder reads."""


@dataclass(frozen=True)
class Recipe:
    """How one embedded model is made.

    Attributes:
        denoiser: its part, and the name of the step that trains it.
        new: a denoiser with random weights.
        read: opens a trained one.
        frozen: the other parts of its pipeline.
        judges: the judges that ship with it; a model without them is judged by those of "emoji".
        shares: the model whose frozen parts it has, where those serve to the bit; they are not stored again.
        pipeline: puts read parts and a scheduler together.
        inputs: what the denoiser is trained on, out of the folders of the frozen parts.
        pictures: which of the world's pictures.
        mix: shares of composed scenes and empty captions.
        rate: the learning rate on a CPU.
        objective: what the denoiser learns to predict, and the scheduler that ships.
        blocks: the model with whose blocks training begins, where a base gives the latents that it knows.
        drop_skips: chance of a UNet's inner up blocks to go without skips while training.
        call: what a plain call of the pipeline needs besides prompts.
    """

    denoiser: str
    new: Callable[[], Network]
    read: Network
    pipeline: Callable[[Mapping[str, Network], Network], Network]
    frozen: tuple[str, ...] = LATENT
    judges: tuple[str, ...] = ()
    shares: str | None = None
    inputs: Callable[[Mapping[str, Path]], Inputs] = Latents.find
    pictures: Callable[[Pictures], Pictures] = lambda pictures: pictures
    mix: Mix = Mix()
    rate: float = 4e-4
    objective: Objective = Velocity()
    blocks: str | None = None
    drop_skips: float = 0.0
    call: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that the assembled folder holds."""
        return (self.denoiser, *self.frozen, *self.judges)

    @property
    def reads_text(self) -> bool:
        """Whether it paints what a prompt says."""
        return "text_encoder" in self.frozen


def open_part(recipe: Recipe, name: str, path: Path, dtype: torch.dtype) -> Network:
    """Read one part of a pipeline from its folder."""
    if name == "clip_text":
        return load_file(path)["weight"].to(dtype)
    if name == "tokenizer":
        return CLIPTokenizer.from_pretrained(path)
    if name == "text_encoder":
        return CLIPTextModel.from_pretrained(path, dtype=dtype)
    kind: Network = AutoencoderKL if name == "vae" else recipe.read
    part = kind.from_pretrained(path, dtype=dtype, low_cpu_mem_usage=False)
    if name == "vae":
        part.register_to_config(shift_factor=part.config.shift_factor or 0.0)  # flow matching needs a number
    return part.to(dtype)  # diffusers leaves SD3Transformer2DModel as it was written


def people(pictures: Pictures) -> Pictures:
    """The people who are painted in colour."""
    return pictures.select([i for i, r in enumerate(pictures.records) if world.skin_name(r)])


def _stable_diffusion(parts: Mapping[str, Network], scheduler: Network) -> Network:
    return StableDiffusionPipeline(
        **parts,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart(parts: Mapping[str, Network], scheduler: Network) -> Network:
    return PixArtAlphaPipeline(**parts, scheduler=scheduler)


def _stable_diffusion_3(parts: Mapping[str, Network], scheduler: Network) -> Network:
    """With the text encoder and its projection in both CLIPs' places, and nothing in T5's."""
    text = parts["text_encoder"]
    config = CLIPTextConfig(**{**text.config.to_dict(), "projection_dim": len(parts["clip_text"])})
    encoder = CLIPTextModelWithProjection(config).to(text.dtype)
    encoder.text_model.load_state_dict(text.state_dict())
    encoder.text_projection.weight = nn.Parameter(parts["clip_text"])
    return StableDiffusion3Pipeline(
        transformer=parts["joint"],
        scheduler=scheduler,
        vae=parts["vae"],
        text_encoder=encoder,
        tokenizer=parts["tokenizer"],
        text_encoder_2=encoder,
        tokenizer_2=parts["tokenizer"],
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _ddim(parts: Mapping[str, Network], scheduler: Network) -> Network:
    return DDIMPipeline(unet=parts["people"], scheduler=scheduler)


_MIX = Mix(composed=0.5, people=5.0, kinds=(1, 4, 0.5))
"""People have most to learn, and so have pairs, which the models do not learn as a small share."""

_CALL = {"height": 64, "width": 64}

RECIPES = {
    "emoji": Recipe(
        "unet",
        new_unet,
        UNet2DConditionModel,
        _stable_diffusion,
        judges=JUDGES,
        mix=_MIX,
        drop_skips=0.15,
        call=_CALL,
    ),
    "emoji-dit": Recipe(
        "transformer",
        new_transformer,
        PixArtTransformer2DModel,
        _pixart,
        shares="emoji",
        mix=_MIX,
        rate=6e-4,
        call={
            **_CALL,
            "use_resolution_binning": False,
            "clean_caption": False,
            "max_sequence_length": TOKENS,
        },
    ),
    "emoji-mmdit": Recipe(
        "joint",
        new_joint_transformer,
        SD3Transformer2DModel,
        _stable_diffusion_3,
        frozen=(*LATENT, "clip_text"),
        inputs=JointLatents.find,
        shares="emoji",
        mix=_MIX,
        rate=6e-4,
        objective=Flow(),
        blocks="emoji-dit",
        call={**_CALL, "max_sequence_length": TOKENS},
    ),
    "emoji-people": Recipe(
        "people",
        new_plain_unet,
        UNet2DModel,
        _ddim,
        frozen=(),
        inputs=lambda _: Pixels(32),
        pictures=people,
        mix=Mix(composed=0.0, empty=0.0),
        objective=Velocity(PURE_NOISE),
    ),
}
