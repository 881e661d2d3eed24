"""Checkpoints of one file, in the layouts of their first publication, through diffusers' converters."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .errors import NotFoundError, UsageError
from .quiet import no_bars
from .suggest import near

PICKLES = (".ckpt", ".bin", ".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLES)


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
        path: the checkpoint; what it does not hold is read from ``config``.
        config: folder in diffusers' layout of the same kind of model; its weights are not needed. None takes
            the one that diffusers recognises, if it lies in the hub's cache.
        dtype: number format of the weights.

    Raises:
        ValueError: for pickles, damaged files, missing weights and missing configurations.
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "meta tensor" in reason:
            reason = "the file lacks weights that this config asks for"
        raise UsageError(
            f"could not open {str(path)!r} as a {name} with config {str(folder)!r}: {reason}"
        ) from error
    _check_whole(path, folder, pipe)
    return pipe


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
        lacking = [name for name, p in module.named_parameters() if p.is_meta]
        if lacking:
            raise UsageError(
                f"the file {str(path)!r} lacks weights that this config asks for: {lacking[0]} of {part}; "
                f"is {str(folder)!r} the folder of this kind of model?"
            )
