"""Turn a name, a folder, a hub id or a pipeline object into an opened model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import zoo
from .arguments import checked
from .base import Model
from .errors import NotFoundError, UsageError
from .families.dit import DiT
from .families.flux import Flux
from .families.latent_diffusion import LatentDiffusion
from .families.pixart import PixArt
from .families.sana import Sana
from .families.stable_diffusion import StableDiffusion
from .families.stable_diffusion_3 import StableDiffusion3
from .families.stable_diffusion_xl import StableDiffusionXL
from .families.unconditional import Unconditional
from .formats import is_finite
from .opening.folder import INDEX, read_folder, read_index, variants
from .opening.hub import fetched
from .opening.one_file import checked_path, looks_like_path, read_file
from .opening.placing import check_device
from .places.refuse import refuse_absent
from .run.schedule import check_scheduler
from .suggest import near
from .zoo.folders import describe

ADAPTERS: dict[str, type[Model]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArt,
    "SanaPipeline": Sana,
    "DiTPipeline": DiT,
    "LDMTextToImagePipeline": LatentDiffusion,
    "DDPMPipeline": Unconditional,
    "DDIMPipeline": Unconditional,
}


@checked
def load(
    source: Any,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    size: tuple[int, int] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    config: str | Path | None = None,
) -> Model:
    """Open a model.

    Args:
        source: a name from the zoo (``"emoji"``), a local folder in diffusers' layout, a hub id
            (``"owner/name"``), a ``.safetensors`` checkpoint of one file in its original layout, or a
            diffusers pipeline object (which is held as it is).
        dtype: number format to load the weights in; ignored for pipeline objects.
        device: where to put the weights; ignored for pipeline objects.
        size: height and width of the pictures, in pixels; None is the model's own.
        revision: branch, tag or commit of a hub id.
        variant: which of the weights that a hub id or folder holds, ``"fp16"`` for example.
        config: for checkpoints of one file, a folder in diffusers' layout of the same kind of model, which
            says what the file does not: configurations, tokenizers, scheduler. Nothing is downloaded.

    Returns:
        The opened model. The pipeline keeps working; nothing in it is changed. Training or evaluation mode is
        yours: our own calls are in evaluation mode, and put back what was.

    Raises:
        LookupError: for a name that is neither in the zoo nor a folder, and for a path to nothing; it names
            near misses.
        ValueError: for damaged, pickled or non-finite weights, for files that lack weights or hold more than
            the configuration asks for, for unsupported pipelines, and for options that cannot act on this
            source.

    >>> load("emoji").sites("text_encoder/layer.0/self_attn.out")[0].kind
    'self_attn.out'
    """
    check_device(device)
    told: dict[str, Any] = {}
    where: dict[str, Any] | None
    options = {"revision": revision, "variant": variant, "config": config}
    if isinstance(source, (str, Path)):
        name = str(source)
        found = _found(name)
        here = name not in zoo.ZOO and Path(found).exists()
        where = {"source": str(Path(found).resolve()) if here else name, "dtype": dtype, **options}
        _check_options(name, found, options)
        with torch.random.fork_rng(devices=[]):  # some layers draw what is then read
            if Path(found).is_file():
                pipe = read_file(Path(found), config, dtype).to(device)
            else:
                folder = Path(found) if Path(found).is_dir() else fetched(name, revision, variant, _supported)
                _supported(read_index(folder)["_class_name"])  # before its weights are read
                pipe = read_folder(folder, name, dtype, variant, zoo.shared(folder)).to(device)
                told = describe(folder)
    else:
        pipe, name = source, getattr(source, "name_or_path", "") or type(source).__name__
        _refuse(options, ("revision", "variant", "config"), f"{name} is open already")
        where = None
    adapter = _supported(type(pipe).__name__)
    check_scheduler(pipe.scheduler)
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            refuse_absent(part, module)
            _check_finite(part, module)
    model = adapter(pipe, name, told.get("guidance"), size)
    model.loaded = where
    if isinstance(model, StableDiffusion3) and "text_tokens" in told:
        model.t5_tokens = told["text_tokens"]
    return model


def opened(pipe: Any) -> Model:
    """Open a pipeline object that the user goes on calling: img2img, inpainting, any scheduler.

    Sites, weights and steps are those of its family; nothing is checked. An opened model stays as it is.

    Raises:
        ValueError: for a pipeline of another family.
    """
    if isinstance(pipe, Model):
        return pipe
    name = type(pipe).__name__
    families = sorted(ADAPTERS, key=len, reverse=True)
    family = next((f for f in families if re.match(f.removesuffix("Pipeline") + r"(?!\d)", name)), None)
    return (ADAPTERS[family] if family else _supported(name))(pipe, name)


def _found(name: str) -> str:
    """Return what is to be opened: a folder, a file, or a hub id as it is."""
    if name in zoo.ZOO:
        return str(zoo.folder(name))
    path = checked_path(name) if looks_like_path(name) else Path(name)
    if path.is_file() or (path / INDEX).is_file():
        return str(path)
    if path.is_dir():
        read_index(path)  # says what it is instead
    if name.count("/") == 1:
        return name  # a hub id
    raise NotFoundError(
        f"there is no model {name!r}, neither in the zoo nor as a folder; {near(name, zoo.ZOO)}"
    )


def _check_options(name: str, found: str, options: dict[str, Any]) -> None:
    """Raise ValueError for options that would do nothing without a word."""
    if name in zoo.ZOO:
        _refuse(options, ("revision", "variant", "config"), f"{name!r} is a model of the zoo")
    elif Path(found).is_file():
        _refuse(options, ("revision", "variant"), f"{name!r} is one file")
    elif Path(found).is_dir():
        _refuse(options, ("revision", "config"), f"{name!r} is a local folder")
        variant, known = options["variant"], variants(Path(found))
        if variant and variant not in known:
            raise UsageError(f"{name!r} has no weights of variant {variant!r}; {near(variant, known)}")
    else:
        _refuse(options, ("config",), f"{name!r} is a hub id")


def _refuse(options: dict[str, Any], names: tuple[str, ...], because: str) -> None:
    for name in names:
        if options[name] is not None:
            raise UsageError(f"{name} is {options[name]!r}, which does nothing: {because}; leave it out")


def _supported(name: str) -> type[Model]:
    if name not in ADAPTERS:
        raise UsageError(
            f"{name} is not supported; supported are {', '.join(ADAPTERS)}. "
            "For another family write an adapter: subclass denoscope.Model (docs/adapters.md)"
        )
    return ADAPTERS[name]


def _check_finite(part: str, module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if not is_finite(parameter):
            raise UsageError(f"{part}.{name} holds NaN or infinite values; the weights are damaged")
