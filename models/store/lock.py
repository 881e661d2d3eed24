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
    path, left = folder / NAME, []

    def sign(handle: int) -> None:
        left.append(_what(os.read(handle, 10_000)))
        _note(handle, {"pid": os.getpid(), "host": socket.gethostname(), "what": what})

    lock = FileLock(path, timeout=wait, thread_local=False, fallback_to_soft=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        raise StateError(
            f"{folder} is being written by {_holder(path)}, and was for {wait:g} s; wait until that one is "
            "done, stop it, or name another folder"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise StateError(
                f"the file system of {folder} cannot lock files ({error.strerror}), so two writers could "
                "mix; name a folder on another disk"
            ) from error
        raise
    try:
        yield left[-1]
        path.write_bytes(b"")  # came to its end
    finally:
        lock.release()


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
