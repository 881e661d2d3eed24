"""Turn a name, a folder, a hub id or a pipeline object into an opened model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from . import zoo
from .base import Model
from .families.dit import DiT
from .families.flux import Flux
from .families.latent_diffusion import LatentDiffusion
from .families.pixart import PixArt
from .families.sana import Sana
from .families.stable_diffusion import StableDiffusion
from .families.stable_diffusion_3 import StableDiffusion3
from .families.stable_diffusion_xl import StableDiffusionXL
from .families.unconditional import Unconditional
from .quiet import no_bars
from .run.schedule import check_scheduler
from .suggest import near

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


def load(
    source: Any,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    size: tuple[int, int] | None = None,
) -> Model:
    """Open a model.

    Args:
        source: a name from the zoo (``"emoji"``), a local folder in diffusers' layout, a hub id
            (``"owner/name"``), or a diffusers pipeline object (which is held as it is).
        dtype: number format to load the weights in; ignored for pipeline objects.
        device: where to put the weights; ignored for pipeline objects.
        size: height and width of the pictures, in pixels; None is the model's own.

    Returns:
        The opened model. The pipeline keeps working; nothing in it is changed.

    Raises:
        LookupError: for a name that is neither in the zoo nor a folder; it names near misses.
        ValueError: for damaged, pickled or non-finite weights, and for unsupported pipelines.

    >>> load("emoji").sites("text_encoder/layer.0/self_attn.out")[0].kind
    'self_attn.out'
    """
    guidance = None
    if isinstance(source, (str, Path)):
        name = str(source)
        folder = _folder(name)
        pipe = _read(folder, dtype, name).to(device)
        guidance = _default_guidance(folder)
    else:
        pipe, name = source, getattr(source, "name_or_path", "") or type(source).__name__
    adapter = _adapter(pipe)
    check_scheduler(pipe.scheduler)
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            _check_present(part, module)
            _check_finite(part, module)
    return adapter(pipe, name, guidance, size)


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
    family = next((f for f in families if name.startswith(f.removesuffix("Pipeline"))), None)
    return (ADAPTERS[family] if family else _adapter(pipe))(pipe, name)


def _folder(name: str) -> str:
    if name in zoo.ZOO:
        return str(zoo.folder(name))
    if (Path(name) / "model_index.json").is_file():
        return name
    if Path(name).is_dir():
        raise ValueError(
            f"{name!r} is a folder without model_index.json; give a folder saved by save_pretrained()"
        )
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name  # a hub id
    raise LookupError(
        f"there is no model {name!r}, neither in the zoo nor as a folder; {near(name, zoo.ZOO)}"
    )


def _read(folder: str, dtype: torch.dtype, name: str) -> Any:
    try:
        options: dict[str, Any] = {"safety_checker": None} if _has_safety_checker(folder) else {}
        with no_bars():
            return diffusers.DiffusionPipeline.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                low_cpu_mem_usage=False,  # what it falls back to without accelerate, with a long warning
                **options,
            )
    except Exception as error:  # diffusers raises many kinds; each becomes one line that names the input
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"could not open {name!r}: {reason[0] if reason else type(error).__name__} "
            "(weights must be whole safetensors files; pickled .bin or .ckpt weights are refused)"
        ) from error


def _has_safety_checker(folder: str) -> bool:
    index = Path(folder) / "model_index.json"
    return not index.is_file() or "safety_checker" in json.loads(index.read_text())


def _default_guidance(folder: str) -> float | None:
    world = Path(folder) / "world.json"
    return float(json.loads(world.read_text())["guidance"]) if world.is_file() else None


def _adapter(pipe: Any) -> type[Model]:
    name = type(pipe).__name__
    if name not in ADAPTERS:
        raise ValueError(
            f"{name} is not supported; supported are {', '.join(ADAPTERS)}. "
            "For another family write an adapter: subclass denoscope.Model (docs/adapters.md)"
        )
    return ADAPTERS[name]


def _check_present(part: str, module: nn.Module) -> None:
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ValueError(
            f"the weights of {part} are not in memory but come and go one by one "
            "(enable_sequential_cpu_offload), so they can neither be checked nor edited; "
            "use pipe.enable_model_cpu_offload(), which moves whole components"
        )


def _check_finite(part: str, module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)):
            raise ValueError(f"{part}.{name} holds NaN or infinite values; the weights are damaged")
