"""An edit on disk: one safetensors file, with JSON in its header on its base and where it comes from.

The header holds a hash of everything, so that an edit that was damaged is never applied as another one. Equal
edits with equal notes are equal files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..models.errors import MissingFileError, UsageError
from ..models.store.canonical import json_hash
from ..models.store.disk import write_bytes
from ..models.store.fingerprint import tensor_hash
from ..models.store.schema import read_json
from .lowrank import Delta, LowRank, tensors

FORMAT = "denoscope.edit/2"
HASH = re.compile("[0-9a-f]{64}")
ABOUT = {"base": {str: HASH}, "note": {str: object}, "sha256": HASH}


def write(path: Path, deltas: Mapping[str, Delta], base: Mapping[str, str], note: Mapping[str, Any]) -> None:
    """Write an edit; the file appears under its name only when it is whole.

    Raises:
        OSError: if it cannot be written; an older file stays as it was.
    """
    flat = {
        f"{n}/{part}": t.contiguous().clone() for n, d in deltas.items() for part, t in tensors(d).items()
    }
    about = {"base": dict(base), "note": dict(note), "sha256": _hash(flat, base, note)}
    # one entry: the order of several is random
    header = {FORMAT: json.dumps(about, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(flat, header))


def read(path: Path) -> tuple[dict[str, Delta], dict[str, str], dict[str, Any]]:
    """Return the deltas, base and note of an edit.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, damaged, pickled, or something else than an edit.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no edit {str(path)!r}; Edit.save(path) writes one")
    header, flat = _read(path)
    if FORMAT not in header:
        kind = next((k for k in (*header, header.get("format", "")) if k.startswith("denoscope.")), None)
        raise UsageError(
            f"{str(path)!r} is a safetensors file but no edit ({kind or 'no denoscope format'}, expected "
            f"{FORMAT}); {_FIX}"
        )
    try:
        about = read_json(header[FORMAT], ABOUT, "its header")
        base, note = about["base"], about["note"]
        if about["sha256"] != _hash(flat, base, note):
            raise UsageError("it is not what was written")
        deltas = {name: _delta(parts) for name, parts in _group(flat).items()}
        if set(deltas) != set(base):
            raise UsageError(f"it changes {sorted(deltas)}, its header speaks of {sorted(base)}")
    except UsageError as error:
        raise UsageError(f"{str(path)!r} is a damaged edit: {error}; {_FIX}") from error
    return deltas, base, note


_FIX = "give a file that Edit.save wrote"


def _hash(flat: Mapping[str, Tensor], base: Mapping[str, str], note: Mapping[str, Any]) -> str:
    arrays = {name: [str(t.dtype), tensor_hash(t)] for name, t in flat.items()}
    return json_hash({"arrays": arrays, "base": dict(base), "note": dict(note)})


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


def _group(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts of each change, by the name of its weight."""
    names: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        name, _, part = key.rpartition("/")
        names.setdefault(name, {})[part] = tensor
    return names


def _delta(parts: Mapping[str, Tensor]) -> Delta:
    if set(parts) == {"left", "right"}:
        return LowRank(parts["left"], parts["right"])
    if set(parts) == {"delta"}:
        return parts["delta"]
    raise UsageError(f"parts {sorted(parts)}, expected left and right, or delta")
