"""Writes are whole or not there."""

import errno
import os
import subprocess
import sys

import pytest

from denoscope.models.errors import StateError
from denoscope.models.store.disk import check_writable, new_folder, write_bytes


def test_a_file_is_replaced_and_readable_by_others(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    write_bytes(file, b"new")
    assert file.read_bytes() == b"new" and file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*a\.bin"):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_ctrl_c_leaves_the_old_file(tmp_path, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append((tmp_path / "a").exists()), sync(handle)))
    write_bytes(tmp_path / "a", b"new")
    assert seen == [False]


def test_what_is_in_the_way_is_named_before_long_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(NotADirectoryError, match=r"file'$"):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda path, mode: not (str(path) == str(tmp_path) and mode == os.W_OK))
    with pytest.raises(PermissionError, match=tmp_path.name):
        check_writable(tmp_path / "a" / "b")


def test_what_a_killed_run_left_beside_is_not_taken_over(tmp_path):
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "old").write_text("")
    with new_folder(tmp_path / "run") as part:
        part.mkdir()
    assert list((tmp_path / "run").iterdir()) == [] and list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    folder = tmp_path / "run"
    with new_folder(folder) as part:
        part.mkdir()
        (part / "x").write_text("1")
        assert not folder.exists()
    assert (folder / "x").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_fails_is_gone(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "run") as part:
        part.mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("run", "file"):
        with (
            pytest.raises(FileExistsError, match=f"{name} exists; name a new folder"),
            new_folder(tmp_path / name),
        ):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "run"]


def test_a_second_writer_of_a_folder_is_told_who_the_first_one_is(tmp_path):
    """It must not take away what the first one has written so far."""
    folder = tmp_path / "run"
    with new_folder(folder) as part:
        part.mkdir()
        (part / "x").write_text("1")
        with pytest.raises(
            StateError, match=rf"run is being written by process {os.getpid()} on .*; wait until"
        ):
            new_folder(folder).__enter__()
    assert (folder / "x").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


KILLED = """
import sys
from pathlib import Path
from denoscope.models.store.disk import new_folder

with new_folder(Path(sys.argv[1])) as part:
    part.mkdir()
    (part / "half").write_text("1")
    print("here", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_blocks_nobody(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        with pytest.raises(StateError, match=f"being written by process {process.pid} on"):
            new_folder(folder).__enter__()
        process.kill()
    with new_folder(folder) as part:
        part.mkdir()
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())
