"""Errors of our own, so that the command line can shorten these alone and leave a real fault its traceback.

Each is still the built-in error that it was before, so ``except ValueError`` goes on working.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

_LIBRARIES = ("site-packages", "dist-packages", "/IPython/", "<string>", "<@")
"""Installed code, and what is made while running: constructors of dataclasses, checks of arguments."""
_HERE = Path(__file__).parent.parent  # the folder of the package, or of the checkout's five folders
_FOLDERS = tuple(str(_HERE / name) for name in ("analysis", "denoscope", "editing", "models", "probes"))


class DenoscopeError(Exception):
    """Something that the caller can put right; the message repeats what was given and says how.

    A notebook shows the message and the line that asked, not the frames between.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return short_traceback(self)


def short_traceback(error: BaseException) -> list[str]:
    """Return the lines that a notebook shows: message, notes, and where the caller's own code was."""
    lines = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
    lines += [f"  {_place(frame)}" for frame in _own_frames(error.__traceback__)[-2:]]
    return [*lines, "  (import traceback; traceback.print_last() shows every frame)"]


def _own_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames in the caller's own code: not ours, not of an installed library."""
    return [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith(_FOLDERS) and not any(part in frame.filename for part in _LIBRARIES)
    ]


def _place(frame: traceback.FrameSummary) -> str:
    where = "this notebook" if "ipykernel" in frame.filename else frame.filename
    return f"{where}, line {frame.lineno}, in {frame.name}: {frame.line}"


class UsageError(DenoscopeError, ValueError):
    """What was given cannot be used."""


class WrongTypeError(DenoscopeError, TypeError):
    """What was given is of another kind than what is asked for."""


class NotFoundError(DenoscopeError, LookupError):
    """There is nothing of that name; the message names near misses."""


class StateError(DenoscopeError, RuntimeError):
    """What was asked for is not possible as things are now: a file, a lock, a model in use."""


class MissingFileError(DenoscopeError, FileNotFoundError):
    """There is no such file or folder."""


class FileInTheWayError(DenoscopeError, FileExistsError):
    """Something that must not be overwritten stands there already."""
