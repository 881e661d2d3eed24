"""From a folder or hub id in transformers' format to a frozen network; safetensors alone, and no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ..errors import NotFoundError, UsageError
from ..opening.folder import one_line, read_network
from ..opening.hub import CONFIG, fetched_network
from ..opening.one_file import checked_path, looks_like_path
from ..opening.placing import FORMATS, check_device
from ..store.schema import read_json

TWO_TOWERS: Mapping[str, str] = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""Class by the configuration's ``model_type``."""
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
"""Files that a tokenizer is read from; one of them is there."""
CLASSIFIER = "ForImageClassification"
"""How the classes of image classifiers end."""


def folder_of(source: str | Path) -> Path:
    """Return the folder of a checkpoint: a local one, or that of a hub id, which is fetched.

    Raises:
        LookupError: for a path to nothing, and for what is neither folder nor hub id.
        ValueError: for a folder that holds no network, and where the hub cannot be reached.
    """
    name = str(source)
    path = checked_path(name) if looks_like_path(name) else Path(name)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UsageError(
                f"could not open the judge {name!r}: it has no {CONFIG}; give a folder that "
                "save_pretrained() wrote"
            )
        return path
    if path.exists():
        raise UsageError(f"the judge {name!r} is a file; give the folder that it lies in")
    if name.count("/") != 1:
        raise NotFoundError(
            f"there is no judge {name!r}: no such folder, and no hub id ('owner/name'); give one of the two"
        )
    return fetched_network(name)


def architecture(folder: Path) -> str:
    """Return the class that a checkpoint is of, as its configuration names it."""
    told = read_json((folder / CONFIG).read_bytes(), {str: object}, str(folder / CONFIG))
    named = told.get("architectures") or [TWO_TOWERS.get(str(told.get("model_type")), "")]
    return str(named[0])


def read_frozen(folder: Path, name: str, device: str, dtype: torch.dtype) -> Any:
    """Return a checkpoint's network: on its device, in evaluation mode, frozen.

    Raises:
        ValueError: for classes that transformers does not have, damaged and pickled weights, and devices that
            this machine does not have.
    """
    check_device(device)
    kind, failed = architecture(folder), f"could not open the judge {name!r}"
    if dtype not in FORMATS.values():
        raise UsageError(f"{failed} in {dtype}; dtype is one of {', '.join(map(str, FORMATS.values()))}")
    found = getattr(transformers, kind, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UsageError(
            f"{failed}: it is of class {kind!r}, which transformers does not have; code is not run"
        )
    with torch.random.fork_rng(devices=[]):  # some layers draw what is then read
        network = read_network(found, folder, failed, dtype)
    return network.to(device).eval().requires_grad_(False)


def read_tokenizer(folder: Path, name: str, words: int) -> Any:
    """Return a checkpoint's tokenizer.

    Args:
        folder: of a checkpoint in transformers' format.
        name: how to call it in errors.
        words: how many tokens its network knows.

    Raises:
        ValueError: if there is none that can be read, or it is another network's.
    """
    failed = f"could not open the judge {name!r}"
    if not any((folder / file).is_file() for file in TOKENIZERS):  # transformers would make an empty one
        raise UsageError(
            f"{failed}: it has no tokenizer; save it there too: tokenizer.save_pretrained(folder)"
        )
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # transformers raises many kinds
        raise UsageError(f"{failed}: its tokenizer cannot be read ({one_line(error)})") from error
    if len(found) > words:
        raise UsageError(
            f"{failed}: its tokenizer has {len(found)} tokens, and the network knows {words}; give the "
            "tokenizer of this network"
        )
    return found
