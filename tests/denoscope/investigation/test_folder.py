"""Writing whole files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import xarray as xr

from denoscope.investigation.folder import RunFolder, settings_key, write_text


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_text_is_written_and_replaced(tmp_path):
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two é")
    assert (tmp_path / "a").read_text("utf-8") == "two é" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_stop_while_writing_leaves_no_half_file(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a", "new")
    assert not list(tmp_path.iterdir())


def test_a_stage_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, {"prompt": "a cat"})
    folder.open()
    data = xr.Dataset({"x": ("i", [1.0, 2.0])})
    assert folder.load("look") is None
    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(OSError, match="No space"):
        folder.save("look", data, 1.0)
    assert folder.load("look") is None and not list(tmp_path.rglob("look*"))
    monkeypatch.undo()
    folder.save("look", data, 1.0)
    xr.testing.assert_identical(folder.load("look"), data)


def test_the_key_depends_on_settings_and_not_on_their_order():
    assert settings_key({"a": 1, "b": 2}) == settings_key({"b": 2, "a": 1}) != settings_key({"a": 1, "b": 3})


def test_a_foreign_run_json_is_replaced(tmp_path):
    (tmp_path / "run.json").write_text("not json")
    folder = RunFolder(tmp_path, {"prompt": "a cat"})
    folder.open()
    assert (tmp_path / "run.json.part").exists() and not (tmp_path / "run.json").exists()
