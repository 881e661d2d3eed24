"""Writing whole files or none."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from denoscope.investigation.folder import RunFolder, settings_key, write_text
from denoscope.models.errors import StateError


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


# damage --------------------------------------------------------------------------------------------------


def run_of(path, prompt="a cat"):
    folder = RunFolder(path, {"prompt": prompt})
    folder.open()
    return folder


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_stage_is_made_again_and_said_so(tmp_path, caplog, finished):
    """Whatever file of a stage is lost, cut or changed; zarr alone reads many of them as other numbers."""
    values = np.arange(60.0).reshape(20, 3)
    values[3] = np.nan
    data = xr.Dataset({"x": (("site", "i"), values)}, {"site": [f"s{i}" for i in range(20)]}, {"metric": "m"})
    folder = run_of(tmp_path / "run")
    folder.save("text", data, 1.5)
    if finished:
        folder.finish({})
    files = [p for p in folder._store.rglob("*") if p.is_file() and p.parent != folder._store]
    assert len(files) > 6
    for file in files:
        for how in (
            Path.unlink,
            flip,
            lambda p: p.write_bytes(b""),
            lambda p: p.write_bytes(p.read_bytes()[1:]),
        ):
            shutil.copytree(tmp_path / "run", tmp_path / "part")
            how(tmp_path / "part" / file.relative_to(tmp_path / "run"))
            caplog.clear()
            again = run_of(tmp_path / "part")
            assert again.load("text") is None and "The stage 'text' is made again" in caplog.text
            again.save("text", data, 2.5)
            xr.testing.assert_identical(again.load("text"), data)
            assert again.finish({})["seconds"] == {"text": 2.5}
            shutil.rmtree(tmp_path / "part")
    caplog.clear()
    xr.testing.assert_identical(run_of(tmp_path / "run").load("text"), data)
    assert not caplog.text


def test_a_stage_of_another_run_is_never_taken(tmp_path, caplog):
    """Its settings were lost, or its files were copied here."""
    data, one = xr.Dataset({"x": ("i", [1.0])}), run_of(tmp_path / "one")
    one.save("look", data, 1.0)
    (tmp_path / "one" / "run.json.part").unlink()
    assert run_of(tmp_path / "one", "a dog").load("look") is None and "is of another run" in caplog.text


@pytest.mark.parametrize("finished", [True, False])
def test_damaged_settings_are_written_again(tmp_path, caplog, finished):
    """Nothing they say is believed; the stages know themselves which run they are of."""
    data, folder = xr.Dataset({"x": ("i", [1.0])}), run_of(tmp_path)
    folder.save("look", data, 1.5)
    if finished:
        folder.finish({"seeds": [1]})
    note = tmp_path / ("run.json" if finished else "run.json.part")
    held = json.loads(note.read_text())
    for text in (
        "",
        "[1]",
        "[" * 100_000,
        json.dumps({**held, "seconds": {"look": 3}}),
        json.dumps({"key": 3}),
    ):
        note.write_text(text)
        caplog.clear()
        again = run_of(tmp_path)
        assert "it is written again" in caplog.text
        xr.testing.assert_identical(again.load("look"), data)
        whole = again.finish({"seeds": [1]})
        assert whole["seconds"] == {"look": 1.5}
        note = tmp_path / "run.json"
        assert {**whole, "sha256": json.loads(note.read_text())["sha256"]} == json.loads(note.read_text())


def test_the_whole_store_opens_with_xarray_alone(tmp_path):
    data, folder = xr.Dataset({"x": ("i", [1.0])}, {"i": ["a"]}, {"metric": "m"}), run_of(tmp_path)
    folder.save("look", data, 1.0)
    folder.save("text", data, 1.0)
    folder.finish({})
    for group in ("look", "text"):
        with xr.open_zarr(tmp_path / "results.zarr", group=group) as found:
            xr.testing.assert_identical(found.load(), data)
    with xr.open_datatree(tmp_path / "results.zarr", engine="zarr") as tree:
        assert set(tree.children) == {"look", "text"}


def test_a_second_run_in_the_same_folder_is_told_who_holds_it(tmp_path):
    folder, second = RunFolder(tmp_path / "run", {}), RunFolder(tmp_path / "run", {})
    with folder.writing():
        with (
            pytest.raises(StateError, match=rf"run is being written by process {os.getpid()} on"),
            second.writing(),
        ):
            pass
        folder.open()
    with second.writing():
        assert (tmp_path / "run" / "run.json.part").exists()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.json.part"]
