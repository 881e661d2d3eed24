"""Errors of our own, so that the command line can shorten these alone and leave a real fault its traceback.

Each is still the built-in error that it was before, so ``except ValueError`` goes on working.
"""

from __future__ import annotations


class DenoscopeError(Exception):
    """Something that the caller can put right; the message repeats what was given and says how."""


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
