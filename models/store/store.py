"""A folder of results, each under a key that says what it is.

A unit is a file of named arrays and, written last, a manifest with a hash of each. What a killed writer
leaves has no manifest and is no unit; what was damaged since is noticed when it is read, and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ..errors import StateError, UsageError
from .canonical import json_hash, plain_json
from .disk import write_bytes
from .lock import writing
from .numerics import NUMERICS

log = logging.getLogger(__name__)

MANIFEST = "unit.json"
KEY = re.compile("[0-9a-f]{64}")

FORMAT = 1
"""Version of the layout on disk."""


class DamagedUnitError(StateError):
    """A unit on disk is not what was written, or not of this version."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One thing kept.

    Args:
        key: what it is, as a hash.
        tensors: its arrays by name, on the CPU.
        about: what was told of it; JSON.
    """

    key: str
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Store:
    """Units in a folder.

    Several processes may write, one after another: each write holds the folder's lock. Readers need none.

    Args:
        folder: made with the first unit.
        wait: seconds that a writer waits for another one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     unit = store.make({"what": "squares", "up to": 3}, lambda: ({"x": torch.arange(3) ** 2}, {}))
    ...     unit.tensors["x"], store.key(**{"what": "squares", "up to": 3}) in store
    (tensor([0, 1, 4]), True)
    """

    folder: Path
    wait: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file; a store is a folder: name another path")

    @staticmethod
    def key(**parts: Any) -> str:
        """Return the key of a unit: a hash of what it is, and of the version of the numerics.

        Args:
            **parts: all that the unit depends on; JSON, whose order does not matter.

        Raises:
            UsageError: for a part that is no JSON.
        """
        return json_hash({"numerics": NUMERICS, "parts": plain_json(parts, "a key")})

    def keys(self) -> list[str]:
        """Return the keys of all units, sorted; their arrays are not looked at."""
        written = self.folder.glob(f"*/{MANIFEST}") if self.folder.is_dir() else ()
        return sorted(path.parent.name for path in written if self._whole(path.parent.name))

    def __contains__(self, key: str) -> bool:
        """Whether a unit can be read; all of it is read and compared with its hashes."""
        return self._sound(key) is not None

    def get(self, key: str) -> Unit | None:
        """Return a unit, or None if there is none.

        Raises:
            DamagedUnitError: if it is damaged, or was written by another version; it names the file.
        """
        note = self._manifest(key)
        while note is not None:
            try:
                return self._read(key, note)
            except DamagedUnitError:
                before, note = note, self._manifest(key)
                if note == before:  # else it was replaced while it was read
                    raise
        return None

    def put(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
        """Keep a unit; one of the same key is replaced, for readers at one moment.

        Args:
            key: from ``key``.
            tensors: arrays by name.
            about: what else to tell of it; JSON.

        Raises:
            UsageError: for what cannot be written.
            StateError: if another writer holds the folder for longer than ``wait``.
            OSError: if it cannot be written.
        """
        self._write(key, tensors, about or {}, {})

    def make(
        self,
        parts: Mapping[str, Any],
        make: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]],
    ) -> Unit:
        """Return a unit, and make and keep it first if it is not there, or is damaged.

        Args:
            parts: what the unit is: all that it depends on.
            make: returns its arrays, and what else to tell of it. No lock is held meanwhile, so that others
                can write; of two that make the same unit at once, the second replaces the first one's.

        Raises:
            UsageError: for what cannot be a key or be written.
            StateError: if another writer holds the folder for longer than ``wait``.
            OSError: if it cannot be written.
        """
        key = self.key(**parts)
        unit = self._sound(key)
        if unit is None:
            tensors, about = make()
            self._write(key, tensors, about, parts)
            unit = self.get(key)
            if unit is None:
                raise StateError(f"{self.folder} was emptied while it was written; keep others away from it")
        return unit

    # reading ------------------------------------------------------------------------------------------

    def _home(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise UsageError(f"{key!r} is no key; Store.key(...) makes one of what the unit is")
        return self.folder / key

    def _sound(self, key: str) -> Unit | None:
        """A unit that can be read; one that cannot counts as not there."""
        try:
            return self.get(key)
        except DamagedUnitError as error:
            log.warning("%s It counts as not there.", error)
            return None

    def _whole(self, key: str) -> bool:
        try:
            return self._manifest(key) is not None
        except DamagedUnitError as error:
            log.warning("%s It counts as not there.", error)
            return False

    def _manifest(self, key: str) -> dict[str, Any] | None:
        path = self._home(key) / MANIFEST
        try:
            note = json.loads(path.read_bytes())
            said = note.pop("sha256")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, "it is truncated or no manifest") from error
        if (note.get("format"), note.get("numerics")) != (FORMAT, NUMERICS):
            versions = f"format {note.get('format')}, numerics {note.get('numerics')}"
            raise _damaged(path, f"it is of another version ({versions}; now {FORMAT}, {NUMERICS})")
        if said != json_hash(note) or note.get("key") != key:
            raise _damaged(path, "it is not what was written")
        return dict(note)

    def _read(self, key: str, note: Mapping[str, Any]) -> Unit:
        path = self._home(key) / note["file"]
        try:
            tensors = load_tensors(path.read_bytes())
        except FileNotFoundError as error:
            raise _damaged(path, "it is missing") from error
        except SafetensorError as error:
            raise _damaged(path, "it is truncated or no safetensors") from error
        hashes = {name: _array_hash(t) for name, t in tensors.items()}
        if hashes != note["arrays"]:
            wrong = sorted(n for n in {**hashes, **note["arrays"]} if hashes.get(n) != note["arrays"].get(n))
            raise _damaged(path, f"{', '.join(wrong)} is not what was written")
        return Unit(key, tensors, note["about"])

    # writing ------------------------------------------------------------------------------------------

    def _write(
        self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any], parts: Mapping[str, Any]
    ) -> None:
        home = self._home(key)
        still = {name: _still(name, t) for name, t in tensors.items()}
        note = {
            "format": FORMAT,
            "numerics": NUMERICS,
            "key": key,
            "parts": plain_json(parts, "a key"),
            "about": plain_json(about, "about"),
            "file": f"arrays-{uuid.uuid4().hex[:8]}.safetensors",
            "arrays": {name: _array_hash(t) for name, t in still.items()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with writing(self.folder, key, self.wait) as left:
            if left is not None and KEY.fullmatch(left):
                self._tidy(left)
            home.mkdir(exist_ok=True)
            try:
                write_bytes(home / note["file"], save_tensors(still))
                manifest = {**note, "sha256": json_hash(note)}
                write_bytes(home / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
            finally:
                self._tidy(key)

    def _tidy(self, key: str) -> None:
        """Remove what a unit's manifest does not name: what was replaced, or left; needs the lock."""
        home = self._home(key)
        try:
            note = self._manifest(key)
        except DamagedUnitError:
            note = None
        if note is None:
            (home / MANIFEST).unlink(missing_ok=True)
        for path in [*home.glob("arrays-*"), *home.glob(".*.part")]:
            if note is None or path.name != note["file"]:
                path.unlink()
        if home.is_dir() and not any(home.iterdir()):
            home.rmdir()


def _damaged(path: Path, why: str) -> DamagedUnitError:
    return DamagedUnitError(
        f"{path} is damaged: {why}; delete it, or make the unit again (Store.make does it by itself)."
    )


def _array_hash(tensor: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _still(name: str, tensor: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise UsageError(f"{name!r} is {type(tensor).__name__}, not a tensor; give torch.as_tensor(...)")
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
