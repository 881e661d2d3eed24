"""Folders in diffusers' layout: every weight that a model has comes from its file, or the folder is refused.

diffusers and transformers fill in weights that a file lacks, with random numbers or with what lies in memory,
and leave out those that they have no place for; both tell of it only if they are asked, network by network.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import UsageError
from ..store.schema import read_json
from .quiet import no_bars

log = logging.getLogger("denoscope")
INDEX = "model_index.json"
_WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?\.(?P<kind>safetensors|bin)"
)
_HEADS = ("lm_head.",)
"""Of language models, which read prompts without them."""


_SAVE_AGAIN = (
    "save the pipeline again after pipe.fuse_lora() and pipe.unload_lora_weights(), or load its LoRA "
    "yourself and give the pipeline"
)


def read_index(folder: Path) -> dict[str, Any]:
    """Return what a folder says of itself, its ``model_index.json``.

    Raises:
        UsageError: if there is none, or it is damaged; the message says what else the folder is.
    """
    path = folder / INDEX
    if not path.is_file():
        raise UsageError(f"{str(folder)!r} is {_something_else(folder)}")
    return dict(read_json(path.read_bytes(), {"_class_name": str, str: object}, str(path)))


def read_folder(
    folder: Path,
    name: str,
    dtype: torch.dtype,
    variant: str | None = None,
    elsewhere: Mapping[str, Path] | None = None,
) -> Any:
    """Return the pipeline in a folder.

    Args:
        folder: in diffusers' layout.
        name: how to call it in errors.
        dtype: number format of the weights.
        variant: which of several sets of weights, where a network has it.
        elsewhere: parts that lie in other folders than below this one.

    Raises:
        UsageError: for pickled, damaged, missing and superfluous weights; it names the network and the cause.
    """
    index = read_index(folder)
    outside, parts = elsewhere or {}, dict[str, Any]()
    for part, kind in _networks(index):
        where, failed = outside.get(part, folder / part), f"could not open {name!r}: {part}"
        parts[part] = read_network(kind, where, failed, dtype, variant)
    for part in outside.keys() - parts.keys():
        parts[part] = getattr(transformers, index[part][1]).from_pretrained(outside[part])
    for file in folder.glob("pytorch_lora_weights*.safetensors"):
        log.warning("the LoRA %s of %s is not loaded; pipe.load_lora_weights does it", file.name, name)
    absent = {part: None for part, value in index.items() if value == [None, None]}  # Stable Diffusion 3's T5
    if "safety_checker" in index:
        absent["safety_checker"] = None
    try:
        with no_bars():
            return diffusers.DiffusionPipeline.from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, **parts, **absent
            )
    except Exception as error:  # diffusers raises many kinds; each becomes one line that names the input
        raise UsageError(f"could not open {name!r}: {one_line(error)}") from error


def variants(folder: Path) -> list[str]:
    """Return the names of the variants that some network of a folder has."""
    return sorted({v for part in folder.iterdir() if part.is_dir() for v in _sets(part) if v})


def _networks(index: Mapping[str, Any]) -> Iterable[tuple[str, type[nn.Module]]]:
    """The networks that a folder names, by component; what is not known is left to diffusers to refuse."""
    for part, value in index.items():
        if part != "safety_checker" and isinstance(value, list) and len(value) == 2 and value[0]:
            library, kind = value
            home = getattr(diffusers.pipelines, library, None)  # LDM's text encoder lives there
            if library in ("diffusers", "transformers"):
                home = importlib.import_module(library)
            found = getattr(home, str(kind), None)
            if isinstance(found, type) and issubclass(found, nn.Module):
                yield part, found


def read_network(
    kind: Any, folder: Path, failed: str, dtype: torch.dtype, variant: str | None = None
) -> nn.Module:
    """Return one network of a folder.

    Args:
        kind: its class in diffusers or transformers.
        folder: with its configuration and weights.
        failed: how an error begins.
        dtype: number format of the weights.
        variant: which of several sets of weights, where it has it.

    Raises:
        UsageError: for pickled, damaged, missing and superfluous weights.
    """
    own = _chosen(folder, failed, variant)
    options: dict[str, Any] = {"variant": own} if own else {}
    if issubclass(kind, diffusers.ModelMixin):
        options["low_cpu_mem_usage"] = False  # what it falls back to without accelerate, with a long warning
    try:
        with no_bars():
            network, told = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # the two libraries raise many kinds
        raise UsageError(f"{failed}: {one_line(error)}{_cause(folder, own)}") from error
    opened: nn.Module = network
    _account(opened, told, failed)
    free = isinstance(opened, diffusers.ModelMixin) and not hasattr(opened, "hf_quantizer")
    if free and not opened._keep_in_fp32_modules and opened.dtype != dtype:
        opened.to(dtype)  # Stable Diffusion 3's stays in the format of its file
    return opened


def _chosen(folder: Path, failed: str, variant: str | None) -> str | None:
    """The set of weights that is to be read: the variant where there is one, else the usual one."""
    found = _sets(folder)
    for choice in (variant, None):
        if "safetensors" in found.get(choice, ()):
            return choice
    safe = sorted(str(v) for v, kinds in found.items() if "safetensors" in kinds)
    if safe:
        raise UsageError(
            f"{failed} has weights of variants alone ({', '.join(safe)}); give variant={safe[0]!r}"
        )
    if found:
        raise UsageError(
            f"{failed} has pickled weights alone, which can run code when they are read, so they are "
            "refused: convert them to safetensors, for example by save_pretrained()"
        )
    if (folder / "adapter_config.json").is_file():
        raise UsageError(f"{failed} was saved as its LoRA alone, without its own weights; {_SAVE_AGAIN}")
    raise UsageError(f"{failed} has no weights in {str(folder)!r}; give a folder that is whole")


def _sets(folder: Path) -> dict[str | None, set[str]]:
    """The sets of weights in a network's folder: kinds of files by variant, None for the usual one."""
    found: dict[str | None, set[str]] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := _WEIGHTS.fullmatch(file.name):
            found.setdefault(match["variant"], set()).add(match["kind"])
    return found


def _account(network: nn.Module, told: Mapping[str, Any], failed: str) -> None:
    """Raise UsageError unless each weight of the network was in the file, and each of the file is in use."""
    missing, foreign = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if told["error_msgs"] or told["mismatched_keys"]:
        raise UsageError(f"{failed}: {[*told['error_msgs'], *told['mismatched_keys']][0]}")
    lora = next(filter(_is_lora, foreign), None)
    if lora:
        raise UsageError(
            f"{failed} was saved with a LoRA in it ({lora}), which would be left out; {_SAVE_AGAIN}"
        )
    if missing:
        raise UsageError(
            f"{failed} lacks {len(missing)} of its weights ({_first(missing)}), which would be random; give "
            "a file that is whole, and of this configuration"
        )
    computed = tuple(name for name, _ in network.named_buffers())  # older files hold them too
    foreign = [n for n in foreign if not n.endswith(computed) and not n.startswith(_HEADS)]
    if foreign:
        raise UsageError(
            f"{failed} has {len(foreign)} weights that its configuration has no place for "
            f"({_first(foreign)}); give the configuration of these weights"
        )


def _first(names: list[str]) -> str:
    return f"{names[0]}, ..." if len(names) > 1 else names[0]


def _is_lora(name: str) -> bool:
    return "lora_" in name or ".lora." in name or ".base_layer." in name


def _cause(folder: Path, variant: str | None) -> str:
    """Whether it is the weights, by looking at them."""
    for file in sorted(folder.glob("*.safetensors")):
        match = _WEIGHTS.fullmatch(file.name)
        if match and match["variant"] == variant and _keys(file) is None:
            return f" ({file.name} is truncated or damaged)"
    return ""


def _keys(file: Path) -> list[str] | None:
    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError):
        return None


def _something_else(folder: Path) -> str:
    """What a folder without an index is, and what to do with it."""
    files = [f for f in sorted(folder.iterdir()) if f.suffix == ".safetensors"]
    if (folder / "adapter_config.json").is_file() or any(_is_lora(n) for f in files for n in _keys(f) or ()):
        return (
            "a LoRA, which is no model of its own; open the pipeline that it is for, "
            f"pipe.load_lora_weights({str(folder)!r}), and load(pipe)"
        )
    if (folder / "config.json").is_file():
        return f"one network alone, without {INDEX}; give the folder of the whole pipeline"
    return f"a folder without {INDEX}; give a folder saved by save_pretrained()"


def one_line(error: Exception) -> str:
    """Return what an error says in one line; a first line that ends in a colon takes the second with it."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 1 + lines[0].endswith(":")])
