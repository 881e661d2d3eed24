"""Writes that are whole or not there: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FileInTheWayError
from .lock import making


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        OSError: if it cannot be written (disk full, read-only, no such folder); it names the path, and
            an older file stays as it was.
    """
    with new_file(path) as part:
        part.write_bytes(data)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a file to write; it gets its name when the block ends well, and is gone if it fails.

    Raises:
        OSError: as ``write_bytes``.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_writable(path: Path) -> None:
    """Make sure, before long work, that something can be made at a path; nothing is made.

    Raises:
        OSError: if a file stands in the way, or writing is not allowed; it names the place.
    """
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to; it gets its name when the block ends well, and is gone if it fails.

    Raises:
        FileExistsError: if there is something under that name.
        StateError: if another process is writing it; the message says which.
    """
    _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with making(path):
        _check_free(path)
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)  # of one that was killed
        try:
            yield part
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _check_free(path: Path) -> None:
    if path.exists():
        raise FileInTheWayError(f"{path} exists; name a new folder, or delete it")
