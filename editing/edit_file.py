"""An edit on disk: one safetensors file, with JSON in its header on its base and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..models.errors import MissingFileError, UsageError
from ..models.store.disk import write_bytes
from .lowrank import Delta, LowRank, tensors

FORMAT = "denoscope.edit/1"


def write(path: Path, deltas: Mapping[str, Delta], base: Mapping[str, str], note: Mapping[str, Any]) -> None:
    """Write an edit; the file appears under its name only when it is whole.

    Raises:
        OSError: if it cannot be written; an older file stays as it was.
    """
    flat = {
        f"{n}/{part}": t.contiguous().clone() for n, d in deltas.items() for part, t in tensors(d).items()
    }
    header = {"format": FORMAT, "base": json.dumps(dict(base)), "note": json.dumps(dict(note))}
    data = safetensors.torch.save(flat, header)
    write_bytes(path, data)


def read(path: Path) -> tuple[dict[str, Delta], dict[str, str], dict[str, Any]]:
    """Return the deltas, base and note of an edit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, pickled, or something else than an edit.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no edit {str(path)!r}; Edit.save(path) writes one")
    header, flat = _read(path)
    if header.get("format") != FORMAT:
        kind = header.get("format", "no denoscope format")
        raise UsageError(
            f"{str(path)!r} is a safetensors file but no edit ({kind}, expected {FORMAT}); {_FIX}"
        )
    try:
        base, note = json.loads(header["base"]), json.loads(header["note"])
        deltas = {
            name: _delta({p: flat[f"{name}/{p}"] for p in parts}) for name, parts in _group(flat).items()
        }
        if set(deltas) != set(base) or not isinstance(note, dict):
            raise UsageError(f"it changes {sorted(deltas)}, its header speaks of {sorted(base)}")
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is a damaged edit: {error}; {_FIX}") from error
    return deltas, base, note


_FIX = "give a file that Edit.save wrote"


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(3)
        # torch.save writes a zip archive; a bare pickle starts with 0x80, its protocol, and an opcode
        pickle = start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5" and start[2:] > b"\0"
        why = f"it is truncated or no safetensors ({error})"
        if pickle or start[:2] == b"PK":
            why = "it is pickled, and pickles can run code"
        raise UsageError(f"{str(path)!r} is no edit: {why}; {_FIX}") from error


def _group(flat: Mapping[str, Tensor]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for key in flat:
        name, _, part = key.rpartition("/")
        names.setdefault(name, []).append(part)
    return names


def _delta(parts: Mapping[str, Tensor]) -> Delta:
    if set(parts) == {"left", "right"}:
        return LowRank(parts["left"], parts["right"])
    if set(parts) == {"delta"}:
        return parts["delta"]
    raise UsageError(f"parts {sorted(parts)}, expected left and right, or delta")
