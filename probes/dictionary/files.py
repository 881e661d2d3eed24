"""A dictionary as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...models.errors import DenoscopeError, UsageError
from ...models.site import Site
from ...models.store.tensor_file import TensorFile
from .channels import Channels

CURVE = ["update", "loss", "explained", "explained_by_channel", "l0", "dead"]
"""Columns of the training's record; see ``measures``."""

_CHANNELS = {"site": str, "axes": [str], "kind": str, "source": str | None, "grid": [int]}
FILE = TensorFile(
    "dictionary",
    1,
    {"channels": _CHANNELS, "k": int, "levels": [float | str], "model": str | None, "record": {str: object}},
    "Dictionary.save",
)


def write(path: Path, tensors: Mapping[str, Tensor], channels: Channels, about: Mapping[str, Any]) -> None:
    """Write tensors, channels and the rest."""
    told = {
        "site": str(channels.site),
        "axes": list(channels.axes),
        "kind": channels.kind,
        "source": None if channels.source is None else str(channels.source),
        "grid": list(channels.grid or ()),
    }
    try:
        FILE.write(path, tensors, {**about, "channels": told})
    except TypeError as error:
        raise UsageError(
            f"the record of the dictionary is no JSON ({error}); keep numbers and texts"
        ) from error


def read(path: Path) -> tuple[dict[str, Tensor], Channels, dict[str, Any]]:
    """Read them back.

    Raises:
        MissingFileError: if there is no such file.
        UsageError: if it is damaged, or of another kind.
    """
    tensors, about = FILE.read(path)
    found = about.pop("channels")
    try:
        source = None if found["source"] is None else Site(found["source"])
        grid = tuple(found["grid"]) or None
        channels = Channels(Site(found["site"]), tuple(found["axes"]), found["kind"], source, grid)
    except DenoscopeError as error:
        raise FILE.damaged(path, f"its channels are {found} ({error})") from error
    return tensors, channels, about
