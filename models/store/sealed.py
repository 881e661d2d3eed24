"""Folders of arrays that know what was written.

zarr reads a chunk that is missing as zeros, and cannot tell a changed one. So a folder gets a manifest with a
hash of each array and of what lies beside them, written last; whoever reads an array compares it first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .canonical import json_hash
from .disk import write_bytes
from .schema import Schema, read_json
from .tensor_file import HASH

GROUP = "manifest"
MANIFEST = f"{GROUP}/.zattrs"
"""A group of zarr's format 2, so that no reader of zarr stumbles over it; its one attribute is JSON."""
FORMAT = 1
BESIDE = ""
"""Name of what lies beside the arrays."""


class DamagedFolderError(UsageError):
    """A folder is not what was written."""


@dataclass(frozen=True)
class Sealed:
    """A folder whose manifest was read and is sound.

    Args:
        folder: where it lies.
        about: what was told of it; JSON.
        arrays: the hash of each array, by name.
    """

    folder: Path
    about: Mapping[str, Any]
    arrays: Mapping[str, str]

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compare arrays with what was written; None is all, and that there are no others.

        Raises:
            DamagedFolderError: if one of them is something else; it names it.
        """
        if names is None:
            names = sorted({*self.arrays, *_files(self.folder)})
        for name in names:
            if _hash(self.folder, _files(self.folder, name).get(name, [])) != self.arrays.get(name):
                raise _damaged(
                    self.folder, f"{name or 'what lies beside its arrays'} is not what was written"
                )


def seal(folder: Path, kind: str, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder, as the last of its files.

    Args:
        folder: of zarr's format 2; each folder in it counts as an array.
        kind: what it is, in a word.
        about: what to tell of it; JSON.

    Raises:
        UsageError: if ``about`` is no JSON.
        OSError: if it cannot be written.
    """
    try:
        told = json.loads(json.dumps(dict(about)))
    except (TypeError, ValueError) as error:
        raise UsageError(f"what is told of {folder} is no JSON: {error}") from error
    (folder / GROUP).mkdir(exist_ok=True)
    write_bytes(folder / GROUP / ".zgroup", b'{"zarr_format": 2}')
    arrays = {name: _hash(folder, files) for name, files in _files(folder).items()}
    note = {"format": FORMAT, "kind": kind, "about": told, "arrays": arrays}
    manifest = {**note, "sha256": json_hash(note)}
    write_bytes(folder / MANIFEST, json.dumps({"json": json.dumps(manifest, sort_keys=True)}).encode())


def unseal(folder: Path, kind: str, schema: Schema) -> Sealed:
    """Read a folder's manifest, and compare what lies beside its arrays.

    Args:
        folder: written by ``seal``.
        kind: what it has to be.
        schema: of what is told of it.

    Raises:
        UsageError: if there is no manifest, or of another kind or version.
        DamagedFolderError: if it is not what was written.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} holds no {kind}: it has no manifest, which is written last (and was not in earlier "
            "versions); give a folder that is whole, or make it again"
        ) from None
    shape = {"format": int, "kind": str, "about": {str: object}, "arrays": {str: HASH}, "sha256": HASH}
    try:
        note = read_json(read_json(text, {"json": str}, "its manifest")["json"], shape, "its manifest")
    except UsageError as error:
        raise _damaged(folder, str(error)) from error
    if note.pop("sha256") != json_hash(note):
        raise _damaged(folder, "its manifest is not what was written")
    if (note["kind"], note["format"]) != (kind, FORMAT):
        raise UsageError(
            f"{folder} holds no {kind} of version {FORMAT}, but a {note['kind']} of {note['format']}"
        )
    try:
        read_json(json.dumps(note["about"]), schema, "what is told of it")
    except UsageError as error:
        raise _damaged(folder, str(error)) from error
    found = Sealed(folder, note["about"], note["arrays"])
    found.check([BESIDE])
    return found


def _files(folder: Path, only: str | None = None) -> dict[str, list[Path]]:
    """The files of each array, by its name. What systems hide everywhere (.DS_Store) does not count."""
    found: dict[str, list[Path]] = {BESIDE: []} if only in (None, BESIDE) else {}
    places = folder.iterdir() if only in (None, BESIDE) else [folder / only]
    for place in places:
        if place.name == GROUP:
            found[BESIDE] += place.glob(".zgroup")
        elif place.is_dir() and only != BESIDE:
            found[place.name] = sorted(p for p in place.rglob("*") if p.is_file() and _counts(p))
        elif place.is_file() and _counts(place):
            found[BESIDE].append(place)
    return found


def _counts(path: Path) -> bool:
    return not path.name.startswith(".") or path.name.startswith(".z")


def _hash(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {sha}\n".encode())
    return digest.hexdigest()


def _damaged(folder: Path, why: str) -> DamagedFolderError:
    return DamagedFolderError(
        f"could not read {folder}, which is damaged: {why}; make it again, or take it from a copy"
    )
