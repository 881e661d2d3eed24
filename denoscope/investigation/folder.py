"""A run's folder: each finished stage is on disk at once, and a killed run goes on where it stopped.

While a run is under way the folder holds ``results.zarr.part`` (one store for each finished stage) and
``run.json.part`` (its settings); both lose the ``.part`` when the run is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from ..analysis.scores import load_store, save_store
from ..models.errors import FileInTheWayError
from ..models.store.disk import write_bytes

OWN_FILES = (
    "results.zarr",
    "results.zarr.part",
    "run.json",
    "run.json.part",
    "report.html",
    "edit.safetensors",
)


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it finds.

    Args:
        path: the folder.
        settings: what the results depend on; JSON. The same settings find an earlier run again.
    """

    path: Path
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A hash of the settings."""
        return settings_key(self.settings)

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
        if held is not None and held.get("key") != self.key:
            if not fresh:
                what = held.get("settings", {}).get("prompt", "unknown")
                raise FileInTheWayError(
                    f"{self.path} holds another run (about {what!r}, or with other settings or weights); "
                    "name a new folder with --output, or delete this one"
                )
            for name in OWN_FILES:
                _remove(self.path / name)
        if self._held() is None:
            for name in OWN_FILES:
                _remove(self.path / name)
            self._note({}, part=True)

    def _held(self) -> dict[str, Any] | None:
        for name in ("run.json", "run.json.part"):
            file = self.path / name
            if file.is_file():
                try:
                    found = json.loads(file.read_text())
                except ValueError:
                    continue
                if isinstance(found, dict):
                    return found
        return None

    @property
    def _store(self) -> Path:
        whole = self.path / "results.zarr"
        return whole if whole.is_dir() else self.path / "results.zarr.part"

    def load(self, stage: str) -> xr.Dataset | None:
        """Return a finished stage's result, or None if it is still to be made (or is damaged)."""
        try:
            return load_store(self._store / stage)
        except FileNotFoundError:
            return None
        except ValueError:
            _remove(self._store / stage)
            return None

    def save(self, stage: str, result: xr.Dataset, seconds: float) -> None:
        """Write a stage's result, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        self._store.mkdir(exist_ok=True)
        save_store(result, self._store / stage)
        held = self._held() or {}
        self._note({**held.get("seconds", {}), stage: round(seconds, 2)}, part=True)

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Mark the run as whole and return what ``run.json`` says.

        Args:
            about: further provenance; JSON.
        """
        part = self.path / "results.zarr.part"
        if part.is_dir():
            zarr.open_group(
                str(part), mode="a", zarr_format=2
            )  # makes it one store: xr.open_datatree reads it
            part.rename(self.path / "results.zarr")
        held = self._held() or {}
        whole = self._note(held.get("seconds", {}), part=False, about={**held.get("about", {}), **about})
        _remove(self.path / "run.json.part")
        return whole

    def _note(
        self, seconds: Mapping[str, float], part: bool, about: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        note = {
            "key": self.key,
            "settings": dict(self.settings),
            "seconds": dict(seconds),
            "about": dict(about or {}),
        }
        write_text(self.path / ("run.json.part" if part else "run.json"), json.dumps(note, indent=1) + "\n")
        return note


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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
