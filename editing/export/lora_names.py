"""What the factors of a LoRA are called: by diffusers, and by kohya's scripts and those who follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.base import Model
from ...models.errors import UsageError
from ...models.families.flux import Flux
from ...models.families.stable_diffusion import StableDiffusion
from ...models.families.stable_diffusion_3 import StableDiffusion3
from ...models.families.stable_diffusion_xl import StableDiffusionXL
from ...models.opening.ldm_keys import unet_key
from ...models.opening.text_keys import wrapped

FORMATS = ("diffusers", "kohya")
KOHYA: Mapping[type[Model], Mapping[str, str]] = {
    StableDiffusion: {"unet": "lora_unet", "text_encoder": "lora_te"},
    StableDiffusionXL: {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    StableDiffusion3: {
        "transformer": "lora_transformer",
        "text_encoder": "lora_te1",
        "text_encoder_2": "lora_te2",
        "text_encoder_3": "lora_te3",
    },
    Flux: {"transformer": "lora_transformer", "text_encoder": "lora_te1", "text_encoder_2": "lora_te3"},
}
"""How each network is called; T5 is the third encoder in all families."""


@dataclass(frozen=True)
class Namer:
    """The names of one format, for one model.

    Args:
        pipeline: class of the model's pipeline, for errors.
        parts: what each network that is read is called.
        name: from a network and a layer's path in it to the name of its factors, without the network's.
        separator: between what a name is made of.
        factors: what the two factors, down and up, are called.
        alpha: whether the rank is written beside them.
    """

    pipeline: str
    parts: Mapping[str, str]
    name: Callable[[str, str], str]
    separator: str
    factors: tuple[str, str]
    alpha: bool

    def refuses(self, part: str) -> str:
        """Why a network's factors are not read; nothing if they are."""
        return "" if part in self.parts else f"{self.pipeline} reads LoRAs of {', '.join(self.parts)} alone"

    def tensors(self, layer: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
        """Return the factors of a layer by their names."""
        part, _, path = layer.partition(".")
        full = f"{self.parts[part]}{self.separator}{self.name(part, path).replace('.', self.separator)}"
        named = {f"{full}.{kind}.weight": t for kind, t in zip(self.factors, (down, up), strict=True)}
        return named | ({f"{full}.alpha": torch.tensor(float(len(down)))} if self.alpha else {})


def namer(model: Model, format: str) -> Namer:
    """Return the names of a format for a model.

    Raises:
        UsageError: if there is no such format, or none for the model's pipeline.
    """
    pipeline = type(model.pipe).__name__
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}; give {' or '.join(map(repr, FORMATS))}")
    if format == "kohya":
        if type(model) not in KOHYA:
            known = ", ".join(family.__name__ for family in KOHYA)
            raise UsageError(
                f"the format 'kohya' has names for {known}, and {model.name!r} is a {pipeline}; leave format "
                "out, or export the pipeline instead: export.pipeline(model, edit, path)"
            )
        return Namer(pipeline, KOHYA[type(model)], _kohya(model), "_", ("lora_down", "lora_up"), True)
    read = getattr(model.pipe, "_lora_loadable_modules", ())
    if not read:
        raise UsageError(
            f"{pipeline} has no load_lora_weights; export the pipeline instead, or save the edit: "
            "export.pipeline(model, edit, path), edit.save(path)"
        )
    return Namer(pipeline, {part: part for part in read}, _published, ".", ("lora_A", "lora_B"), False)


def _published(part: str, path: str) -> str:
    """By the names under which CLIP's encoders were published; diffusers takes off what it does not need."""
    return wrapped(path) if part.startswith("text_encoder") and path.startswith("encoder.layers.") else path


def _kohya(model: Model) -> Callable[[str, str], str]:
    def original(part: str, path: str) -> str:
        if part == "unet" and isinstance(model, StableDiffusionXL):  # of XL alone
            return unet_key(f"{path}.weight", model.pipe.unet).removesuffix(".weight")
        return _published(part, path)

    return original
