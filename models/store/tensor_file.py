"""One safetensors file with JSON beside its arrays and a hash of everything.

A damaged file is never read as another value, and equal values are equal files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import MissingFileError, UsageError
from .canonical import json_hash
from .disk import write_bytes
from .fingerprint import tensor_hash
from .schema import Schema, read_json

HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorFile:
    """A kind of file.

    Args:
        kind: what it holds, in a word.
        version: of its layout.
        about: schema of the JSON beside the arrays.
        writer: which function writes it, for errors.
    """

    kind: str
    version: int
    about: Schema
    writer: str

    @property
    def format(self) -> str:
        """What the header calls it."""
        return f"denoscope.{self.kind}/{self.version}"

    def write(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write a file; it appears under its name only when it is whole.

        Raises:
            OSError: if it cannot be written; an older file stays as it was.
        """
        flat = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        told = {"about": dict(about), "sha256": _hash(flat, about)}
        # one entry: safetensors writes several in random order
        write_bytes(path, safetensors.torch.save(flat, {self.format: json.dumps(told, sort_keys=True)}))

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the arrays and what is told of them.

        Raises:
            MissingFileError: if there is no such file.
            UsageError: if it is truncated, damaged, pickled, or of another kind.
        """
        if not path.is_file():
            raise MissingFileError(f"there is no {self.kind} {str(path)!r}; {self.writer}(path) writes one")
        header, tensors = self._open(path)
        if self.format not in header:
            names = (*header, header.get("format", ""))
            other = next((n for n in names if n.startswith("denoscope.")), "no format of denoscope")
            raise self.refused(path, f"it is a safetensors file of {other}, expected {self.format}")
        try:
            schema = {"about": self.about, "sha256": HASH}
            told = read_json(header[self.format], schema, "its header")
        except UsageError as error:
            raise self.damaged(path, str(error)) from error
        if told["sha256"] != _hash(tensors, told["about"]):
            raise self.damaged(path, "it is not what was written")
        return tensors, told["about"]

    def refused(self, path: Path, why: str) -> UsageError:
        """Return the error for something else."""
        return UsageError(f"{str(path)!r} is no {self.kind}: {why}; give a file that {self.writer} wrote")

    def damaged(self, path: Path, why: str) -> UsageError:
        """Return the error for a file of this kind that cannot be read."""
        return UsageError(
            f"{str(path)!r} is a damaged {self.kind}: {why}; give a file that {self.writer} wrote"
        )

    def _open(self, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            why = f"it is truncated or no safetensors ({error})"
            if is_pickled(path):
                why = "it is pickled, and pickles can run code"
            raise self.refused(path, why) from error


def is_pickled(path: Path) -> bool:
    """Return whether a file begins as pickles do."""
    with path.open("rb") as file:
        start = file.read(3)
    # torch.save writes a zip archive; a bare pickle starts with 0x80, its protocol, and an opcode
    bare = start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5" and start[2:] > b"\0"
    return bare or start[:2] == b"PK"


def _hash(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    arrays = {name: [str(t.dtype), tensor_hash(t)] for name, t in tensors.items()}
    return json_hash({"arrays": arrays, "about": dict(about)})
