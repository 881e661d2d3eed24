"""Checkpoints of one file, in the layouts of their first publication, through diffusers' converters."""

from __future__ import annotations

import importlib.util
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import SD_2_TEXT_ENCODER_KEYS_TO_IGNORE, fetch_diffusers_config
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from .errors import NotFoundError, UsageError
from .quiet import no_bars
from .suggest import near

PICKLES = (".ckpt", ".bin", ".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLES)
_BESIDE = (
    "model_ema.",
    "betas",
    "alphas_cumprod",
    "sqrt_",
    "log_one_minus_",
    "posterior_",
    "denoiser.sigmas",
    "first_stage_model.loss.",
    "safety_checker.",
)
_FIRST, _SHOWN = 4, 5  # numbers by which a weight is known; names in a message
_ALIGNED = 64  # bytes, as torch allocates


def looks_like_path(name: str) -> bool:
    """Return whether a name can only be meant as a path, so that nobody asks the hub for it."""
    return name.startswith(("./", "../", "/", "~", ".\\", "..\\")) or name.lower().endswith(SUFFIXES)


def checked_path(name: str) -> Path:
    """Return the file or folder that a path names.

    Raises:
        LookupError: if there is none; the message names near misses in its folder.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    beside = path.parent
    if not beside.is_dir():
        raise NotFoundError(f"there is no file {name!r}: its folder {str(beside)!r} does not exist")
    files = sorted(f.name for f in beside.iterdir())
    found = near(path.name, files) if files else "that folder is empty"
    raise NotFoundError(f"there is no file {path.name!r} in {str(beside.resolve())!r}; {found}")


def read_file(path: Path, config: str | Path | None, dtype: torch.dtype) -> Any:
    """Return the pipeline of a ``.safetensors`` checkpoint, without asking the hub.

    Args:
        path: the checkpoint; ``config`` says what it does not hold.
        config: folder in diffusers' layout of the same kind of model; its weights are not needed. None takes
            the one that diffusers recognises, if it lies in the hub's cache.
        dtype: number format of the weights.

    Raises:
        ValueError: for pickles, damaged files, missing configurations, families whose pipeline reads no such
            files, weights that the file lacks, and weights for which the configuration has no place.
    """
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            f"{str(path)!r} is no safetensors file; pickled weights ({', '.join(PICKLES)}) can run code when "
            "they are read, so they are refused: convert the file to .safetensors first"
        )
    if importlib.util.find_spec("accelerate") is None:  # the converters would leave missing weights random
        raise UsageError(f"to open the one file {str(path)!r}, install accelerate: pip install accelerate")
    folder = _config(path, config)
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    kind: Any = getattr(diffusers, name, None)
    if not hasattr(kind, "from_single_file"):
        raise UsageError(f"{name} of config {str(folder)!r} has no layout of one file; give the whole folder")
    try:
        with no_bars():
            pipe = kind.from_single_file(
                str(path), config=str(folder), dtype=dtype, local_files_only=True, safety_checker=None
            )
    except Exception as error:  # diffusers raises many kinds; each becomes one line that names the input
        raise UsageError(
            f"could not open {str(path)!r} as a {name} with config {str(folder)!r}: {_reason(error)}"
        ) from error
    _check_whole(path, folder, pipe)
    _check_placed(path, folder, pipe, dtype)
    _align(pipe)
    return pipe


def _reason(error: Exception) -> str:
    """One line of why diffusers could not read a file; the weights that a module lacks it does not name."""
    if isinstance(error, KeyError):
        return f"the file lacks weights that this config asks for: {error}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "meta tensor" not in reason:
        return reason
    models = [frame.f_locals.get("model") for frame, _ in traceback.walk_tb(error.__traceback__)]
    lacking = [name for model in models if isinstance(model, nn.Module) for name in _lacking(model)]
    return f"the file lacks weights that this config asks for: {_some(lacking)}"


def _config(path: Path, config: str | Path | None) -> Path:
    if config is None:
        return _cached(path)
    folder = Path(config).expanduser()
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"config is {str(config)!r}, where no model_index.json lies; give a folder in diffusers' layout"
        )
    for part in (p for p in folder.iterdir() if p.is_dir()):
        if _holds(part, *PICKLES) and not _holds(part, ".safetensors"):
            raise UsageError(f"config holds pickled weights in {str(part)!r}; leave its weights out")
    return folder


def _holds(folder: Path, *suffixes: str) -> bool:
    return any(f.suffix in suffixes for f in folder.iterdir())


def _cached(path: Path) -> Path:
    """The configuration that diffusers recognises the file by, if it was fetched before."""
    try:
        known = fetch_diffusers_config(load_file(path))["pretrained_model_name_or_path"]
    except SafetensorError as error:
        raise UsageError(f"could not open {str(path)!r}: {error}") from error
    try:
        return _config(path, snapshot_download(known, local_files_only=True))
    except LocalEntryNotFoundError:
        raise UsageError(
            f"{str(path)!r} holds weights alone, and looks like a model of {known!r}, whose configuration is "
            "not on this machine; give the folder of such a model, its weights left out: "
            f"load({path.name!r}, config='path/to/{known.split('/')[-1]}')"
        ) from None


def _check_whole(path: Path, folder: Path, pipe: Any) -> None:
    for part, module in pipe.components.items():
        if not isinstance(module, nn.Module):
            continue
        if lacking := _lacking(module):
            raise UsageError(
                f"the file {str(path)!r} lacks weights that this config asks for: {_some(lacking)} of {part};"
                f" is {str(folder)!r} the folder of this kind of model?"
            )


def _lacking(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if p.is_meta]


def _some(names: Sequence[str]) -> str:
    once = list(dict.fromkeys(names))
    return ", ".join(once[:_SHOWN]) + (f" and {len(once) - _SHOWN} more" if len(once) > _SHOWN else "")


def _check_placed(path: Path, folder: Path, pipe: Any, dtype: torch.dtype) -> None:
    """Refuse a file with weights that lie in no component: the converters leave them out without a word.

    Their names tell nothing, since converters rename, cut up, turn and join; but each weight begins as some
    parameter does, or its second half (scale and shift change places), or its first column.
    """
    found: set[tuple[float, ...]] = set()
    for module in pipe.components.values():
        for x in module.state_dict().values() if isinstance(module, nn.Module) else ():
            if x.ndim and x.is_floating_point():
                found |= {_first(y, dtype) for y in (x, x[len(x) // 2 :], x.T[:1] if x.ndim == 2 else x)}
    with safe_open(path, "pt") as file:
        homeless = [
            name
            for name in file.keys()  # noqa: SIM118 - it is no dictionary
            if not _is_beside(name)
            and (part := file.get_slice(name)).get_shape()
            and (x := part[:_FIRST]).is_floating_point()
            and _first(x, dtype) not in found
        ]
    if homeless:
        raise UsageError(
            f"{str(path)!r} holds weights for which config {str(folder)!r} has no place: {_some(homeless)}; "
            "give the folder of the same kind of model, or take them out of the file (a LoRA: load it beside)"
        )


def _align(pipe: Any) -> None:
    """Copy weights that still lie in the file, as it happens: from there, kernels round otherwise."""
    for module in (m for m in pipe.components.values() if isinstance(m, nn.Module)):
        for x in (*module.parameters(), *module.buffers()):
            if x.data_ptr() % _ALIGNED:
                x.data = x.data.clone()


def _first(x: torch.Tensor, dtype: torch.dtype) -> tuple[float, ...]:
    return tuple(x[:_FIRST].flatten()[:_FIRST].to(dtype).tolist())


def _is_beside(name: str) -> bool:
    """Whether a file may hold this besides a model: of its training or schedule, layers that nobody reads."""
    known = name.startswith(_BESIDE) or name in SD_2_TEXT_ENCODER_KEYS_TO_IGNORE
    return known or name.endswith((".position_ids", ".logit_scale"))
