"""One writer at a time in a folder; readers need no lock."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StateError

NAME = ".lock"


@contextmanager
def writing(folder: Path, what: str, wait: float) -> Iterator[str | None]:
    """Hold the lock of a folder, between processes and between threads.

    It is the operating system's lock (``flock``): it ends with the process that holds it, however that one
    ends, so there are no stale locks. The file that it is on stays, and says who holds it.

    Args:
        folder: is there already.
        what: is being written; text.
        wait: seconds to wait for another writer.

    Yields:
        What the writer before was writing when it was killed; None if it came to its end.

    Raises:
        StateError: if another writer still holds it after that time (the message names its process), or the
            file system knows no locks.
    """
    path = folder / NAME
    with _locked(path, folder, what, wait) as left:
        yield left
        path.write_bytes(b"")  # came to its end


@contextmanager
def making(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold the lock of a file or folder that is being made; the lock's own file goes with it.

    Args:
        path: what is being made.
        lock: the lock's file; None is one beside it.

    Raises:
        StateError: if another writer is making it (the message names its process), or as in ``writing``.
    """
    lock = lock or path.with_name(f".{path.name}{NAME}")
    with _locked(lock, path, str(path), 0.0):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path, target: Path, what: str, wait: float) -> Iterator[str | None]:
    left, mine = [], []

    def sign(handle: int) -> None:
        mine.append(path.exists() and os.path.samestat(os.fstat(handle), path.stat()))
        left.append(_what(os.read(handle, 10_000)))
        _note(handle, {"pid": os.getpid(), "host": socket.gethostname(), "what": what})

    lock = FileLock(path, timeout=wait, thread_local=False, fallback_to_soft=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        raise _busy(target, _holder(path), wait) from None
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise StateError(
                f"the file system of {target} cannot lock files ({error.strerror}), so two writers could "
                "mix; name a folder on another disk"
            ) from error
        raise
    try:
        if not mine[-1]:  # its file was taken away, by one that came to its end just now
            raise _busy(target, "another process", wait)
        yield left[-1]
    finally:
        lock.release()


def _busy(target: Path, holder: str, wait: float) -> StateError:
    waited = f", and was for {wait:g} s" if wait else ""
    return StateError(
        f"{target} is being written by {holder}{waited}; wait until that one is done, stop it, or "
        "name another folder"
    )


def _note(handle: int, owner: Mapping[str, Any]) -> None:
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(owner).encode())


def _what(note: bytes) -> str | None:
    try:
        return str(json.loads(note)["what"])
    except (ValueError, KeyError, TypeError):
        return None


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
