"""Folders that know what was written: every change of a file is noticed, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from denoscope.models.store.canonical import json_hash
from denoscope.models.store.sealed import MANIFEST, DamagedFolderError, seal, unseal

SCHEMA = {"n": int}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    for name in ("a/0.0", "a/0.1", "a/.zarray", "b/deep/0", ".zattrs", "beside"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    seal(made, "thing", {"n": 3})
    return made


def test_what_was_written_is_read_again(folder: Path) -> None:
    found = unseal(folder, "thing", SCHEMA)
    found.check()
    assert found.about == {"n": 3} and set(found.arrays) == {"", "a", "b"}
    before = (folder / MANIFEST).read_bytes()
    seal(folder, "thing", {"n": 3})
    assert (folder / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("name", ["a/0.0", "a/.zarray", "b/deep/0"])
def test_arrays_are_compared_when_they_are_asked_for(folder: Path, name: str, tmp_path: Path) -> None:
    array, other = name[0], "b" if name[0] == "a" else "a"
    for change in (
        lambda p: p.unlink(),
        lambda p: p.write_text("other"),
        lambda p: p.rename(p.with_name("0.2")),
        lambda p: p.with_name("0.7").write_text("one more"),
        lambda p: shutil.rmtree(folder / array),
    ):
        shutil.copytree(folder, tmp_path / "kept")
        change(folder / name)
        found = unseal(folder, "thing", SCHEMA)
        found.check([other])
        for names in ([array], None):
            with pytest.raises(DamagedFolderError, match=f"could not read .*made.*: {array} is not what"):
                found.check(names)
        shutil.rmtree(folder)
        (tmp_path / "kept").rename(folder)


@pytest.mark.parametrize("name", ["beside", ".zattrs", "one more"])
def test_what_lies_beside_is_compared_at_once(folder: Path, name: str) -> None:
    (folder / name).write_text("other")
    with pytest.raises(DamagedFolderError, match="what lies beside its arrays is not what was written"):
        unseal(folder, "thing", SCHEMA)


def test_what_systems_leave_everywhere_does_not_count(folder: Path) -> None:
    (folder / ".DS_Store").write_text("")
    (folder / "a" / ".nfs01").write_text("")
    unseal(folder, "thing", SCHEMA).check()


def test_an_array_more_is_noticed(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "0").write_text("")
    with pytest.raises(DamagedFolderError, match="c is not what was written"):
        unseal(folder, "thing", SCHEMA).check()


def test_the_manifest_is_checked_too(folder: Path) -> None:
    path = folder / MANIFEST
    whole = json.loads(json.loads(path.read_text())["json"])
    for text, message in (
        ("[" * 100_000, "its manifest is nested too deep"),
        (json.dumps({**whole, "about": {"n": 4}}), "its manifest is not what was written"),
        (json.dumps({k: v for k, v in whole.items() if k != "arrays"}), "its manifest lacks arrays"),
        (json.dumps({**whole, "arrays": []}), r"its manifest\['arrays'\] is \[\], not a mapping"),
    ):
        path.write_text(json.dumps({"json": text}))
        with pytest.raises(DamagedFolderError, match=message):
            unseal(folder, "thing", SCHEMA)
    path.write_text("")
    with pytest.raises(DamagedFolderError, match="its manifest is no JSON"):
        unseal(folder, "thing", SCHEMA)
    told = {**{k: v for k, v in whole.items() if k != "sha256"}, "about": {"n": "many"}}
    sound = json.dumps({**told, "sha256": json_hash(told)})  # written by something else
    path.write_text(json.dumps({"json": sound}))
    with pytest.raises(DamagedFolderError, match=r"what is told of it\['n'\] is 'many', not int"):
        unseal(folder, "thing", SCHEMA)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no trace of version 1, but a thing of 1"):
        unseal(folder, "trace", SCHEMA)
    for other in (tmp_path, tmp_path / "nowhere", folder / "beside"):
        with pytest.raises(ValueError, match=r"holds no thing: it has no manifest"):
            unseal(other, "thing", SCHEMA)
    with pytest.raises(ValueError, match="what is told of .* is no JSON"):
        seal(folder, "thing", {"n": folder})
