"""A run's folder: each finished stage is on disk at once, and a killed run goes on where it stopped.

While a run is under way the folder holds ``results.zarr.part`` (one store for each finished stage) and
``run.json.part`` (its settings); both lose the ``.part`` when the run is whole. Each stage knows which run it
is of, and is compared with what was written when it is read; one that was damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from ..analysis.scores import read_store, save_store
from ..models.errors import FileInTheWayError, MissingFileError, UsageError
from ..models.store.canonical import json_hash
from ..models.store.disk import write_bytes
from ..models.store.lock import NAME as LOCK
from ..models.store.lock import making
from ..models.store.schema import read_json

log = logging.getLogger("denoscope")

ORACLE = "oracle.png"
"""Pictures of words that the model cannot paint, by row: the source's, the target's."""
OWN_FILES = (
    "results.zarr",
    "results.zarr.part",
    "run.json",
    "run.json.part",
    "report.html",
    "edit.safetensors",
    "changes.parquet",
    ORACLE,
)
TABLE = "changes.parquet"
"""The table of all changes."""
CHANGES = "changes"
"""Where each change is a file of its own."""


HASH = re.compile("[0-9a-f]{64}")
NOTE = {
    "key": HASH,
    "settings": {str: object},
    "seconds": {str: float},
    "about": {str: object},
    "sha256": HASH,
}
STAGE = {"key": HASH, "seconds": float}


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it finds.

    Args:
        path: the folder.
        settings: what the results depend on; JSON. The same settings find an earlier run again.
    """

    path: Path
    settings: Mapping[str, Any]
    seconds: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def key(self) -> str:
        """A hash of the settings."""
        return settings_key(self.settings)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder, and keep other processes out of it.

        Raises:
            StateError: if another process is writing it; the message says which.
            OSError: if it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with making(self.path, self.path / LOCK):
            yield

    def open(self, *, fresh: bool = False) -> None:
        """Make the folder, or take up the run it holds.

        Args:
            fresh: take away a run with other settings, and nothing else, instead of refusing.

        Raises:
            FileExistsError: if it holds a run with other settings.
            OSError: if it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        held = self._held()
        if held is not None and held["key"] != self.key:
            if not fresh:
                what = held["settings"].get("prompt", "unknown")
                raise FileInTheWayError(
                    f"{self.path} holds another run (about {what!r}, or with other settings or weights); "
                    "name a new folder with --output, or delete this one"
                )
            for name in OWN_FILES:
                _remove(self.path / name)
            _empty(self.path / CHANGES)
            held = None
        if held is None:
            for name in OWN_FILES:
                if not name.startswith("results."):  # stages know themselves which run they are of
                    _remove(self.path / name)
            self._note(part=True)

    def _held(self) -> dict[str, Any] | None:
        for name in ("run.json", "run.json.part"):
            file = self.path / name
            if file.is_file():
                try:
                    found = dict(read_json(file.read_bytes(), NOTE, str(file)))
                    if found.pop("sha256") != json_hash(found):
                        raise UsageError(f"{file} is not what was written")
                except UsageError as error:
                    log.warning("%s; it is written again", error)
                    continue
                return found
        return None

    @property
    def _store(self) -> Path:
        whole = self.path / "results.zarr"
        return whole if whole.is_dir() else self.path / "results.zarr.part"

    def load(self, stage: str) -> xr.Dataset | None:
        """Return a finished stage's result, or None if it is still to be made.

        One that is damaged, or of another run, is taken away with a warning.
        """
        path = self._store / stage
        try:
            found, about = read_store(path, STAGE)
            if about["key"] != self.key:
                raise UsageError(f"{path} is of another run")
        except MissingFileError:
            return None
        except UsageError as error:
            log.warning("%s. The stage %r is made again", error, stage)
            _remove(path)
            return None
        self.seconds[stage] = about["seconds"]
        return found

    def save(self, stage: str, result: xr.Dataset, seconds: float) -> None:
        """Write a stage's result, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        self._store.mkdir(exist_ok=True)
        self.seconds[stage] = round(seconds, 2)
        save_store(result, self._store / stage, {"key": self.key, "seconds": self.seconds[stage]})

    def forget(self, stage: str) -> None:
        """Take a finished stage away, so that it is made again."""
        _remove(self._store / stage)

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Mark the run as whole and return what ``run.json`` says.

        Args:
            about: further provenance; JSON.
        """
        store = self._store
        if store.is_dir():  # makes it one store: xr.open_datatree reads it
            for file in store.glob(".z*"):
                file.unlink()
            zarr.open_group(str(store), mode="a", zarr_format=2)
            zarr.consolidate_metadata(str(store), zarr_format=2)
            store.rename(self.path / "results.zarr")
        whole = self._note(part=False, about=about)
        _remove(self.path / "run.json.part")
        return whole

    def _note(self, part: bool, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        note = {
            "key": self.key,
            "settings": dict(self.settings),
            "seconds": dict(self.seconds),
            "about": dict(about or {}),
        }
        note = json.loads(json.dumps(note))  # as it is read again
        text = json.dumps({**note, "sha256": json_hash(note)}, indent=1) + "\n"
        write_text(self.path / ("run.json.part" if part else "run.json"), text)
        return dict(note)


def keeps_stages(path: Path) -> bool:
    """Return whether a folder holds a finished stage of a run, from which the same run goes on."""
    stores = (path / "results.zarr", path / "results.zarr.part")
    return any(store.is_dir() and any(store.iterdir()) for store in stores)


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return a hash of settings that does not depend on their order."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: if it cannot be written; an older file stays as it was.
    """
    write_bytes(path, text.encode())


def _empty(path: Path) -> None:
    """Remove the changes of a run; others may keep files in a folder of that name."""
    for file in path.glob("*.safetensors"):
        file.unlink()
    with suppress(OSError):
        path.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
