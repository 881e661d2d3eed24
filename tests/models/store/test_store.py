"""The store: what was put in comes out to the bit, or the loss is noticed."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.errors import StateError, UsageError
from denoscope.models.store.store import DamagedUnitError, Store

PARTS = {"what": "squares", "sizes": [1, 2], "scale": 0.5}
TENSORS = {
    "half": torch.tensor([1.5, -2.0, torch.inf], dtype=torch.bfloat16),
    "table": torch.arange(6).reshape(2, 3),
    "mask": torch.tensor([True, False]),
    "one": torch.tensor(3.0, dtype=torch.float64),
    "none": torch.zeros(0, 4),
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def kept(store):
    key = store.key(**PARTS)
    store.put(key, TENSORS, {"seconds": 1.5})
    return store, key


def files(store):
    return sorted(str(p.relative_to(store.folder)) for p in store.folder.rglob("*") if p.is_file())


def same(tensors):
    assert set(tensors) == set(TENSORS)
    for name, t in TENSORS.items():
        assert tensors[name].dtype == t.dtype and torch.equal(tensors[name], t)


def arrays(store, key):
    return next((store.folder / key).glob("arrays-*"))


# what was put in comes out -------------------------------------------------------------------------------


def test_a_unit_comes_back_to_the_bit(kept):
    store, key = kept
    unit = Store(store.folder).get(key)
    same(unit.tensors)
    assert (unit.key, unit.about) == (key, {"seconds": 1.5})
    assert key in store and store.keys() == [key]
    assert len(files(store)) == 3  # arrays, manifest, lock


def test_there_is_nothing_before_it_is_put(store):
    key = store.key(**PARTS)
    assert store.get(key) is None and key not in store and store.keys() == []
    assert not store.folder.exists()


def test_views_and_shared_memory_are_kept_as_seen(store):
    x = torch.arange(12.0).reshape(3, 4)
    store.put(store.key(a=1), {"x": x, "t": x.t(), "row": x[1], "wide": x[:1].expand(3, 4)})
    got = store.get(store.key(a=1)).tensors
    assert torch.equal(got["x"], x) and torch.equal(got["t"], x.t())
    assert torch.equal(got["row"], x[1]) and torch.equal(got["wide"], x[:1].expand(3, 4))


def test_a_unit_is_replaced_by_one_of_the_same_key(kept):
    store, key = kept
    store.put(key, {"x": torch.ones(2)})
    assert torch.equal(store.get(key).tensors["x"], torch.ones(2)) and len(files(store)) == 3


def test_make_makes_once(store):
    calls = []

    def make():
        calls.append(1)
        return TENSORS, {"note": "made"}

    for _ in range(3):
        unit = store.make(PARTS, make)
        same(unit.tensors)
        assert unit.about == {"note": "made"}
    assert len(calls) == 1 and store.keys() == [store.key(**PARTS)]
    assert json.loads((store.folder / unit.key / "unit.json").read_text())["parts"] == PARTS


def test_a_make_that_fails_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError):
        store.make(PARTS, lambda: 1 / 0)
    assert store.keys() == [] and not store.folder.exists()


# keys ----------------------------------------------------------------------------------------------------


def test_a_key_depends_on_what_is_said_and_not_on_its_order():
    assert Store.key(a=1, b=[1, {"x": 2}]) == Store.key(b=(1, {"x": 2}), a=1)
    keys = [Store.key(a=a) for a in (1, 2, "1", None, True, [1], {"x": 1}, 0.3, 0.1 + 0.2)]
    assert len(set(keys)) == len(keys)
    assert Store.key(a=1) != Store.key(b=1)


def test_a_key_holds_the_version_of_the_numerics(kept, monkeypatch):
    store, key = kept
    monkeypatch.setattr("denoscope.models.store.store.NUMERICS", 10**6)
    assert store.key(**PARTS) != key and store.key(**PARTS) not in store


def test_a_key_is_the_same_everywhere(monkeypatch):
    """Written down, so that a change of Python or of ours that loses all stores is seen."""
    monkeypatch.setattr("denoscope.models.store.store.NUMERICS", 1)
    assert Store.key(a=1, b=[0.5, "ü"]) == KNOWN


KNOWN = "85eaff159a7d5234e476509357031e1d6fa7b7af62ed76b46322616e79156ede"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (float("nan"), r"a key\['a'\] is nan.*write it as text"),
        (torch.float16, r"torch.float16 \(dtype\), which is no JSON"),
        ({1: 2}, r"has the name 1, which is no text; write '1'"),
        ([{"x": {3}}], r"a key\['a'\]\[0\]\['x'\] is \{3\} \(set\)"),
        (np.float64(1.0), "which is no JSON"),
        (Path("x"), "which is no JSON"),
    ],
)
def test_a_key_of_no_json_is_refused(part, words):
    with pytest.raises(UsageError, match=words):
        Store.key(a=part)


# bad input -----------------------------------------------------------------------------------------------


def test_what_cannot_be_kept_is_refused(store, tmp_path):
    key = store.key(a=1)
    with pytest.raises(UsageError, match=r"'x' is ndarray, not a tensor; give torch.as_tensor"):
        store.put(key, {"x": np.ones(2)})
    with pytest.raises(UsageError, match=r"about\['t'\] is inf"):
        store.put(key, {}, {"t": float("inf")})
    with pytest.raises(UsageError, match=r"'../x' is no key; Store.key"):
        store.put("../x", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; a store is a folder"):
        Store(tmp_path / "file")
    assert not store.folder.exists()


def test_a_full_disk_leaves_the_unit_that_was(kept, monkeypatch):
    store, key = kept

    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("denoscope.models.store.store.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        store.put(key, {"x": torch.ones(2)})
    with pytest.raises(OSError, match="No space"):
        store.put(store.key(b=1), {"x": torch.ones(2)})
    same(store.get(key).tensors)
    assert store.keys() == [key] and len(files(store)) == 3
    assert not (store.folder / store.key(b=1)).exists()
    (store.folder / key / "unit.json").write_text("{")
    with pytest.raises(OSError, match="No space"):
        store.put(key, TENSORS)
    assert files(store) == [".lock"]  # what was damaged is not left to be found again


# damage --------------------------------------------------------------------------------------------------


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) - 1 if place is None else place % len(data)] ^= 4
    path.write_bytes(bytes(data))


def other_numerics(path):
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"numerics": note["numerics"] + 1}))


def other_format(path):
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"format": note["format"] + 1}))


def rename_an_array(path):
    path.write_bytes(path.read_bytes().replace(b'"mask"', b'"musk"'))


DAMAGE = {
    "a flipped byte": ("arrays", flip, "is not what was written"),
    "a renamed array": ("arrays", rename_an_array, "mask, musk is not what was written"),
    "another format of numbers": (
        "arrays",
        lambda p: p.write_bytes(p.read_bytes().replace(b'"I64"', b'"F64"')),
        "table is not what was written",
    ),
    "another shape": (
        "arrays",
        lambda p: p.write_bytes(p.read_bytes().replace(b"[2,3]", b"[3,2]")),
        "table is not what was written",
    ),
    "truncated": ("arrays", lambda p: p.write_bytes(p.read_bytes()[:-3]), "truncated or no safetensors"),
    "empty": ("arrays", lambda p: p.write_bytes(b""), "truncated or no safetensors"),
    "missing": ("arrays", Path.unlink, "it is missing"),
    "truncated manifest": ("unit", lambda p: p.write_bytes(p.read_bytes()[:-30]), "truncated or no manifest"),
    "other about": (
        "unit",
        lambda p: p.write_text(p.read_text().replace("1.5", "2.5")),
        "it is not what was written",
    ),
    "no manifest": ("unit", lambda p: p.write_text("[]"), "truncated or no manifest"),
    "other numerics": ("unit", other_numerics, "another version.*numerics"),
    "other format": ("unit", other_format, r"another version \(format 2, numerics .*; now 1, "),
}


@pytest.mark.parametrize(("which", "damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_made_good(kept, which, damage, words, caplog):
    store, key = kept
    path = next((store.folder / key).glob(f"{which}*"))
    damage(path)
    with pytest.raises(DamagedUnitError, match=rf"{path.name} is damaged: .*{words}.*delete it, or make"):
        store.get(key)
    with caplog.at_level(logging.WARNING):
        assert key not in store
        assert store.keys() == ([key] if which == "arrays" else [])  # arrays are not looked at
    assert path.name in caplog.text and "counts as not there" in caplog.text
    same(store.make(PARTS, lambda: (TENSORS, {})).tensors)
    same(Store(store.folder).get(key).tensors)
    assert len(files(store)) == 3


def test_a_unit_in_another_ones_place_is_damaged(kept):
    store, key = kept
    other = store.key(b=1)
    shutil.copytree(store.folder / key, store.folder / other)
    with pytest.raises(DamagedUnitError, match="it is not what was written"):
        store.get(other)


def test_a_unit_that_is_replaced_while_it_is_read_is_read_again(kept, monkeypatch):
    store, key = kept
    read, replaced = Store._read, []

    def late(self, *args):
        if not replaced:
            replaced.append(store.put(key, {"x": torch.ones(2)}))
        return read(self, *args)

    monkeypatch.setattr(Store, "_read", late)
    assert torch.equal(store.get(key).tensors["x"], torch.ones(2))


def test_a_lock_that_something_else_signed_does_not_stand_in_the_way(kept):
    store, key = kept
    for note in ('{"what": "../x"}', '{"pid": 1}', "[]", "no JSON"):
        (store.folder / ".lock").write_text(note)
        store.put(key, TENSORS)
        same(store.get(key).tensors)


@given(st.booleans(), st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_gives_another_value(tmp_path_factory, manifest, place, bit):
    store = Store(tmp_path_factory.mktemp("flip"))
    key = store.key(**PARTS)
    store.put(key, TENSORS, {"seconds": 1.5})
    path = store.folder / key / "unit.json" if manifest else arrays(store, key)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
    try:
        unit = store.get(key)
    except DamagedUnitError:
        return
    same(unit.tensors)  # white space was another white space
    assert unit.about == {"seconds": 1.5}


# writers -------------------------------------------------------------------------------------------------

WRITER = """
import sys, torch
from pathlib import Path
from denoscope.models.store import store as room
torch.set_num_threads(1)
folder, where = Path(sys.argv[1]), sys.argv[2]
store, write, count = room.Store(folder), room.write_bytes, 0

def stop():
    print("here", flush=True)
    sys.stdin.read()

def slow(path, data):
    if where == path.name.split("-")[0].split(".")[0]:
        (path.parent / f".{path.name}.x.part").write_bytes(data[: len(data) // 2])
        stop()
    write(path, data)

room.write_bytes = slow
while True:
    parts = {"n": count % 3} if where == "loop" else {"n": count}
    store.put(store.key(**parts), {"x": torch.full((50_000,), float(count))})
    count += 1
    if where == "loop" and count == 1:
        print("here", flush=True)
"""


@pytest.fixture
def writer(store):
    started = []

    def start(where):
        command = [sys.executable, "-c", WRITER, str(store.folder), where]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "here\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("where", ["arrays", "unit"])
def test_a_killed_writer_leaves_no_unit_and_the_next_one_cleans_up(store, writer, where):
    kill(writer(where))
    assert store.keys() == [] and store.get(store.key(n=0)) is None and store.key(n=0) not in store
    assert len(files(store)) >= 2  # its lock, and what it left
    store.put(store.key(m=1), {"x": torch.ones(2)})  # takes over at once, and another unit
    assert store.keys() == [store.key(m=1)] and len(files(store)) == 3


def test_a_second_writer_is_told_who_the_first_one_is(store, writer):
    first, second = writer("arrays"), Store(store.folder, wait=0.1)
    with pytest.raises(StateError, match=rf"being written by process {first.pid} on .*name another folder"):
        second.put(store.key(m=1), {"x": torch.ones(2)})
    assert store.get(store.key(m=1)) is None  # readers need no lock


def test_a_second_writer_waits(store, writer):
    first = writer("unit")
    threading.Timer(0.3, first.kill).start()
    start = time.monotonic()
    store.put(store.key(m=1), {"x": torch.ones(2)})
    assert time.monotonic() - start > 0.2 and store.key(m=1) in store


def test_threads_write_one_after_another(store):
    keys = [store.key(n=n) for n in range(8)]
    threads = [
        threading.Thread(target=store.put, args=(k, {"x": torch.full((9,), i)})) for i, k in enumerate(keys)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert store.keys() == sorted(keys) and len(files(store)) == 2 * 8 + 1
    assert all(int(store.get(k).tensors["x"][0]) == i for i, k in enumerate(keys))


def test_a_reader_never_sees_half_a_replacement(store):
    key, stop, seen = store.key(n=0), threading.Event(), []
    store.put(key, {"x": torch.zeros(500)})

    def read():
        while not stop.is_set():
            seen.append(store.get(key).tensors["x"].unique().numel())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        store.put(key, {"x": torch.full((500,), float(i))})
    stop.set()
    reader.join()
    assert len(seen) > 5 and set(seen) == {1}


def test_a_file_system_without_locks_is_refused(store, monkeypatch):
    import errno
    import fcntl

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StateError, match="cannot lock files.*another disk"):
        store.put(store.key(m=1), {"x": torch.ones(2)})


@pytest.mark.stress
def test_a_hundred_killed_writers(store, writer):
    delays = torch.rand(100, generator=torch.Generator().manual_seed(0)) * 0.15
    for delay in delays.tolist():
        process = writer("loop")
        time.sleep(delay)
        kill(process)
        found = store.keys()
        for key in found:
            assert store.get(key).tensors["x"].unique().numel() == 1
    store.put(store.key(m=1), {"x": torch.ones(2)})
    assert len(files(store)) == 2 * len(store.keys()) + 1
