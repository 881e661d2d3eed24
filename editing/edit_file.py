"""An edit on disk: one safetensors file, with JSON in its header on its base and where it comes from.

Equal edits with equal notes are equal files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models.errors import UsageError
from ..models.store.tensor_file import TensorFile
from .base import BASE
from .lowrank import Delta, LowRank, tensors

FILE = TensorFile("edit", 2, {"base": {str: BASE}, "note": {str: object}}, "Edit.save")


def write(path: Path, deltas: Mapping[str, Delta], base: Mapping[str, str], note: Mapping[str, Any]) -> None:
    """Write an edit; the file appears under its name only when it is whole.

    Raises:
        OSError: if it cannot be written; an older file stays as it was.
    """
    flat = {f"{n}/{part}": t for n, d in deltas.items() for part, t in tensors(d).items()}
    FILE.write(path, flat, {"base": dict(base), "note": dict(note)})


def read(path: Path) -> tuple[dict[str, Delta], dict[str, str], dict[str, Any]]:
    """Return the deltas, base and note of an edit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, damaged, pickled, or something else than an edit.
    """
    flat, about = FILE.read(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = tensor
    try:
        deltas = {name: _delta(of_one) for name, of_one in parts.items()}
        if set(deltas) != set(about["base"]):
            raise UsageError(f"it changes {sorted(deltas)}, its header speaks of {sorted(about['base'])}")
    except UsageError as error:
        raise FILE.damaged(path, str(error)) from error
    return deltas, about["base"], about["note"]


def _delta(parts: Mapping[str, Tensor]) -> Delta:
    if set(parts) == {"left", "right"}:
        return LowRank(parts["left"], parts["right"])
    if set(parts) == {"delta"}:
        return parts["delta"]
    raise UsageError(f"parts {sorted(parts)}, expected left and right, or delta")
