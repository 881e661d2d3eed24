"""Many units in one place: keys and scores in a database, arrays in files, a hash of everything.

``Store`` keeps few large units, each in a folder of its own. Here they are many and small: SQLite holds their
keys and small arrays (scores), safetensors files the large ones. The file is written before the row, and
the row in one transaction, so what a killed writer leaves is a file without a row: no unit. One driver writes
until it ends; readers need no lock.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ..errors import MissingFileError, StateError, UsageError
from .canonical import differences, json_hash, plain_json
from .disk import new_file, write_bytes
from .lock import writing
from .packing import packed, unpacked
from .provenance import machine

log = logging.getLogger(__name__)

DATABASE = "study.db"
ARRAYS = "arrays"
FORMAT = 1
"""Version of the layout, kept as the database's ``user_version``."""
IN_ROW = 2**13
"""Bytes of arrays up to which they lie in the database: scores."""

_TABLES = """
CREATE TABLE base (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE studies (id TEXT PRIMARY KEY, what TEXT NOT NULL, about TEXT NOT NULL, units INTEGER NOT NULL,
                      begun REAL NOT NULL, done REAL);
CREATE TABLE units (key TEXT PRIMARY KEY, study TEXT NOT NULL, about TEXT NOT NULL, rows INTEGER NOT NULL,
                    seconds REAL NOT NULL, made REAL NOT NULL, machine TEXT NOT NULL, arrays TEXT NOT NULL,
                    inside BLOB, file TEXT, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE members (study TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (study, key)) WITHOUT ROWID;
"""


@dataclass(frozen=True, eq=False)
class Kept:
    """One unit that was kept.

    Args:
        tensors: its arrays by name, on the CPU.
        about: what was told of it; JSON.
        rows: how many network rows it took.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    rows: int


class Ledger:
    """The units of one folder; a context, which holds the folder's lock from the first write to its end.

    Args:
        folder: made if it is not there.
        base: what all that is kept shares; JSON. None reads whatever is there.

    Raises:
        StateError: for a store of another base (what differs is named) or of a newer version, one that is
            damaged, and a file system without locks.
        MissingFileError: if there is no store, and no base to make one.
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path, base: Mapping[str, Any] | None) -> None:
        self.folder, self.path = folder, folder / DATABASE
        self._open = ExitStack()
        self._writing = False
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; a store is a folder: name another path")
        with self._open:
            if not self.path.is_file():
                if base is None:
                    raise MissingFileError(
                        f"there is no store in {str(folder)!r}; store={str(folder)!r} makes one"
                    )
                self._make(base)
            self.db = self._connected(self.path)
            self._check(base)
            self._open = self._open.pop_all()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # opening ------------------------------------------------------------------------------------------

    def _make(self, base: Mapping[str, Any]) -> None:
        """Make the database whole or not at all: beside its name, then renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with writing(self.folder, "a new store", 60.0):
            if self.path.is_file():
                return
            for left in self.folder.glob(f".{DATABASE}.*"):  # by one that was killed
                left.unlink()
            with new_file(self.path) as part, _told(self.path), _closing(sqlite3.connect(part)) as made:
                made.executescript(_TABLES + f"PRAGMA user_version = {FORMAT};")
                told = plain_json(base, "what a store shares").items()
                made.executemany("INSERT INTO base VALUES (?, ?)", [(n, json.dumps(v)) for n, v in told])
                made.commit()

    def _connected(self, path: Path) -> sqlite3.Connection:
        with _told(path):
            db = self._open.enter_context(_closing(sqlite3.connect(path, isolation_level=None)))
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT:
                newer = "update denoscope" if version > FORMAT else "make it again"
                raise StateError(
                    f"{path} is of format {version}, and this version reads format {FORMAT}; {newer}, or "
                    "name another folder"
                )
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StateError(
                    f"the file system of {path.parent} cannot hold SQLite's write-ahead log (it stays at "
                    f"{mode!r}), as network drives cannot; name a folder on another disk"
                )
            db.execute("PRAGMA synchronous = FULL")
        return db

    def _check(self, base: Mapping[str, Any] | None) -> None:
        with _told(self.path):
            there = {n: json.loads(v) for n, v in self.db.execute("SELECT name, value FROM base")}
        self.base: Mapping[str, Any] = there
        if base is None:
            return
        different = list(differences(there, plain_json(base, "what a store shares")))
        if different:
            raise StateError(
                f"{self.folder} is a store of another model or other settings: {'; '.join(different)}. What "
                "is in it was left as it is: name another folder, or give what it was made with"
            )

    # reading ------------------------------------------------------------------------------------------

    def get(self, key: str) -> Kept | None:
        """Return a unit; None if there is none. One that is damaged counts as not there, with a warning."""
        with _told(self.path):
            row = self.db.execute(
                "SELECT about, rows, inside, file, sha256 FROM units WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        about, rows, inside, file, said = row
        try:
            data = (self.folder / file).read_bytes() if file is not None else bytes(inside or b"")
            if said != _hash(key, about, rows, data):
                raise UsageError("it is not what was written")
            return Kept(unpacked(data), json.loads(about), rows)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            where = self.path if file is None else self.folder / file
            log.warning(
                "a unit in %s is damaged (%s); it counts as not there and is made again.", where, error
            )
            return None

    def holds(self, study: str, key: str) -> bool:
        """Whether a unit is counted as one of a study's."""
        with _told(self.path):
            found = self.db.execute("SELECT 1 FROM members WHERE study = ? AND key = ?", (study, key))
            return found.fetchone() is not None

    def select(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with _told(self.path):
            return self.db.execute(query, values).fetchall()

    # writing ------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Take the lock, from now on and until the end.

        Raises:
            StateError: if another driver holds it; the message names its process.
        """
        if not self._writing:
            left = self._open.enter_context(writing(self.folder, "a study", 0.0))
            self._writing = True
            if left is not None:
                for path in (self.folder / ARRAYS).glob("*/.*.part"):
                    path.unlink()

    def put(  # noqa: PLR0913, PLR0917  # one row
        self,
        key: str,
        study: str,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
        rows: int,
        seconds: float,
        *,
        counts: bool,
    ) -> Kept:
        """Keep a unit, whole or not at all, and return it as ``get`` does; needs the lock.

        Raises:
            OSError: if the disk is full; it names the file, and what was there stays.
        """
        data = packed(tensors)
        told, file = json.dumps(plain_json(about, "about"), sort_keys=True), None
        if len(data) > IN_ROW:
            file = f"{ARRAYS}/{key[:2]}/{key}.safetensors"
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / file, data)
        inside, made, names = None if file else data, json.dumps(machine()), " ".join(tensors)
        row = (key, study, told, rows, seconds, time.time(), made, names, inside, file, len(data),
               _hash(key, told, rows, data))  # fmt: skip
        with self._transaction():
            self.db.execute(f"INSERT OR REPLACE INTO units VALUES ({', '.join('?' * len(row))})", row)
            if counts:
                self.db.execute("INSERT OR IGNORE INTO members VALUES (?, ?)", (study, key))
        return Kept(unpacked(data), json.loads(told), rows)

    def count(self, study: str, key: str) -> None:
        """Count a unit that is there as one of a study's."""
        with self._transaction():
            self.db.execute("INSERT OR IGNORE INTO members VALUES (?, ?)", (study, key))

    def begin(self, study: str, what: str, about: Mapping[str, Any], units: int) -> None:
        """Note a study, once."""
        with self._transaction():
            row = (study, what, json.dumps(plain_json(about, "about")), units, time.time())
            self.db.execute("INSERT OR IGNORE INTO studies VALUES (?, ?, ?, ?, ?, NULL)", row)

    def end(self, study: str) -> None:
        """Note that a study came to its end."""
        with self._transaction():
            self.db.execute("UPDATE studies SET done = ? WHERE id = ?", (time.time(), study))

    def is_done(self, study: str) -> bool | None:
        """Whether a study came to its end; None if it is not known."""
        with _told(self.path):
            found = self.db.execute("SELECT done FROM studies WHERE id = ?", (study,)).fetchone()
        return None if found is None else found[0] is not None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise


@contextmanager
def _closing(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield db
    finally:
        db.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell SQLite's errors as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "database or disk is full" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise StateError(
            f"{path} cannot be used ({error}): it is damaged or no store, or its disk cannot lock files. It "
            "was left as it is; take it from a copy, or name another folder"
        ) from error


def _hash(key: str, about: str, rows: int, data: bytes) -> str:
    return json_hash([key, about, rows, hashlib.sha256(data).hexdigest()])
