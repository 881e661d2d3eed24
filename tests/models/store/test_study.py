"""Studies: killed, cut off, full or shared, a store loses nothing but the unit under way."""

import errno
import logging
import os
import signal
import sqlite3
import time

import pytest
import torch

from denoscope.models.errors import MissingFileError, StateError, UsageError
from denoscope.models.store.identity import spec_of
from denoscope.models.store.ledger import Ledger
from denoscope.models.store.packing import packed, unpacked
from denoscope.models.store.studies import read_studies, units_table
from denoscope.models.store.study import studying

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
BASE = {"weights": "w" * 64, "settings": {"steps": 4, "guidance": 2.0}}
UNITS = 12


def unit(i, size=3):
    return {"scores": torch.full((size,), float(i))}, i


def study(folder, base=BASE, size=3, pause=0.0, asked=None):
    """A study of some units; odd ones are large, and lie in files."""
    found = []
    with studying(folder, base, "squares", {"n": UNITS}, units=UNITS, about={"n": UNITS}) as one:
        for i in range(UNITS):

            def make(i=i):
                time.sleep(pause)
                if asked is not None:
                    asked.append(i)
                return unit(i, 5000 if i % 2 else size)

            kept = one.make({"what": "square", "i": i}, make, {"i": i})
            found.append((kept.tensors["scores"], kept.rows))
    return found


def right(found):
    assert [rows for _, rows in found] == list(range(UNITS))
    assert all((x == i).all() and len(x) == (5000 if i % 2 else 3) for i, (x, _) in enumerate(found))


def whole(folder):
    (record,) = read_studies(folder)
    assert record.done and record.units == record.total == UNITS and record.left == 0
    assert record.rows == sum(range(UNITS))
    return record


def test_a_finished_study_makes_nothing_and_writes_nothing(tmp_path):
    asked = []
    right(study(tmp_path / "s", asked=asked))
    assert asked == list(range(UNITS))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    right(study(tmp_path / "s", asked=asked))
    assert len(asked) == UNITS and len(before) == UNITS // 2
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    record = whole(tmp_path / "s")
    assert record.what == "squares" and record.about == {"n": UNITS} and len(record.machines) == 1
    table = units_table(tmp_path)  # a folder of stores
    assert len(table) == UNITS // 2 * (3 + 5000) and {r["value"] for r in table} == set(
        map(float, range(UNITS))
    )


def killed(folder, after):
    """A driver in a process of its own, killed with SIGKILL after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            study(folder, pause=0.004)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kills(tmp_path, n):
    delays = torch.rand(n, generator=torch.Generator().manual_seed(0)) * 0.1
    for delay in delays.tolist():
        killed(tmp_path / "s", delay)
        if (tmp_path / "s" / "study.db").is_file():
            for record in read_studies(tmp_path / "s"):
                assert record.units <= UNITS
    right(study(tmp_path / "s"))
    whole(tmp_path / "s")
    assert not list(tmp_path.rglob("*.part*"))


def racing(folder):
    """A driver in a process of its own, which ends with 0 if it came through and 3 if another one drives."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        right(study(folder, pause=0.002))
        code = 0
    except StateError as error:
        code = 3 if "being written by" in str(error) else 1
    finally:
        os._exit(code)


def races(tmp_path, n):
    for i in range(n):
        children = [racing(tmp_path / str(i)) for _ in range(3)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert set(codes) <= {0, 3} and 0 in codes, codes
        asked = []
        right(study(tmp_path / str(i), asked=asked))
        whole(tmp_path / str(i))
        assert not asked


def test_of_several_drivers_one_drives_and_nothing_is_counted_twice(tmp_path):
    races(tmp_path, 2)


@pytest.mark.stress
def test_a_hundred_races(tmp_path):
    races(tmp_path, 100)


def test_a_killed_driver_loses_the_unit_under_way(tmp_path):
    kills(tmp_path, 5)


@pytest.mark.stress
def test_a_hundred_killed_drivers(tmp_path):
    for i in range(10):
        kills(tmp_path / str(i), 10)


def test_an_interrupted_study_says_how_long_it_still_takes(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        studying(tmp_path, BASE, "squares", {"n": UNITS}, units=UNITS) as one,
    ):
        one.make({"what": "square", "i": 0}, lambda: (time.sleep(0.01), unit(0))[1])
        one.make({"what": "square", "i": 1}, stop)
    (record,) = read_studies(tmp_path)
    assert (record.units, record.done) == (1, False) and record.left == pytest.approx(11 * record.seconds)


def test_units_inside_units_are_counted_once(tmp_path):
    with studying(tmp_path, BASE, "two", {}, units=1) as one:

        def outer():
            one.inside.make({"i": "inner"}, lambda: (time.sleep(0.02), unit(1))[1])
            return unit(2)

        one.make({"i": "outer"}, outer)
    (record,) = read_studies(tmp_path)
    assert (record.units, record.rows) == (1, 2) and 0.02 < record.seconds < 0.04 + 0.5


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, flip, os.unlink, lambda p: p.write_bytes(b"")])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage, caplog):
    study(tmp_path)
    asked, path = [], sorted(tmp_path.rglob("*.safetensors"))[2]
    damage(path)
    with caplog.at_level(logging.WARNING):
        right(study(tmp_path, asked=asked))
    assert len(asked) == 1 and path.name in caplog.text and "made again" in caplog.text
    whole(tmp_path)


def test_a_changed_row_is_noticed_and_made_again(tmp_path):
    study(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE units SET rows = 99 WHERE about = '{\"i\": 4}'")
    db.close()
    asked = []
    right(study(tmp_path, asked=asked))
    assert asked == [4]


def test_a_database_that_was_cut_off_is_told_and_left(tmp_path):
    study(tmp_path)
    path = tmp_path / "study.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StateError, match=r"study.db cannot be used \(.*\).*left as it is"):
        study(tmp_path)
    assert path.read_bytes().startswith(b"no database")


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("denoscope.models.store.ledger.write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            study(tmp_path)  # unit 1 is a file
    assert read_studies(tmp_path)[0].units == 1
    asked = []
    right(study(tmp_path, asked=asked))
    assert asked == list(range(1, UNITS))


def test_a_full_database_is_told_as_a_full_disk(tmp_path):
    with Ledger(tmp_path, BASE) as ledger:
        ledger.write()
        pages = ledger.db.execute("PRAGMA page_count").fetchone()[0]
        ledger.db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match="No space") as told:
            for i in range(50):
                ledger.put(f"{i:064}", "s", *unit(0, 1500)[:1], {}, 0, 0.0, counts=True)
        assert told.value.errno == errno.ENOSPC and told.value.filename.endswith("study.db")


def test_a_second_driver_is_told_who_the_first_one_is(tmp_path):
    with studying(tmp_path, BASE, "squares", {"n": UNITS}, units=UNITS) as one:
        one.make({"what": "square", "i": 0}, lambda: unit(0))
        with pytest.raises(StateError, match=rf"being written by process {os.getpid()}"):
            study(tmp_path)
        assert read_studies(tmp_path)[0].units == 1  # readers need no lock
    right(study(tmp_path))
    (first,) = read_studies(tmp_path)
    assert first.units == UNITS


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({**BASE, "weights": "v" * 64}, r"weights is \"w+\.\.\. there and \"v+\.\.\. here"),
        ({**BASE, "settings": {"steps": 5, "guidance": 2.0}}, "settings.steps is 4 there and 5 here"),
        ({**BASE, "dtype": "float16"}, 'dtype is none there and "float16" here'),
    ],
)
def test_a_store_of_something_else_is_refused_and_left(tmp_path, base, words):
    study(tmp_path)
    with pytest.raises(StateError, match=words):
        study(tmp_path, base)
    whole(tmp_path)


def test_a_newer_store_is_refused(tmp_path):
    study(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StateError, match="is of format 2, and this version reads format 1; update denoscope"):
        study(tmp_path)


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StateError, match="cannot lock files.*another disk"):
        study(tmp_path / "s")


def test_no_store_and_a_file_in_its_place_are_told(tmp_path):
    with pytest.raises(MissingFileError, match="there is no store in"):
        read_studies(tmp_path)
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="is a file; a store is a folder"):
        study(tmp_path / "f")


def test_a_function_without_a_spec_is_told_how_to_give_one():
    def mine(_):
        return None

    with pytest.raises(
        UsageError, match=r"mine is code of your own.*metric.spec = \{'name': .*mine', 'version': 1\}"
    ):
        spec_of(mine, "the metric")
    mine.spec = {"name": "mine", "version": 1}
    assert spec_of(mine, "the metric") == mine.spec


def test_arrays_come_back_as_they_lay_in_memory():
    x = torch.arange(48.0).reshape(2, 3, 2, 4)
    given = {"plain": x, "last": x.contiguous(memory_format=torch.channels_last), "one": torch.tensor(1.0)}
    for name, back in unpacked(packed(given)).items():
        assert torch.equal(back, given[name]) and back.stride() == given[name].stride()
