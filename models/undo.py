"""Put things back, whatever happens: errors, and Ctrl-C at any moment, also while they are put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self


class Undo:
    """What is to be put back at the end of a with block, the newest first; all of it.

    Each thing is added before it is done, so that nothing done is ever unknown. Putting it back must be right
    if it was not done yet, and if it is put back twice. ``contextmanager`` and ``ExitStack`` alone leave out
    what an interrupt hits; torch's ``always_call`` hooks run for an ``Exception`` only.
    """

    def __init__(self) -> None:
        self._todo: list[Callable[[], object]] = []

    def add(self, undo: Callable[[], object]) -> None:
        """Put this back too."""
        self._todo.append(undo)

    def forget(self) -> None:
        """What was done is whole: put nothing back."""
        self._todo.clear()

    def __call__(self) -> None:
        """Put everything back now; what fails is tried once more, and raised when all is done."""
        error, failed = None, None
        while self._todo:
            undo = self._todo[-1]
            try:
                undo()
                self._todo.pop()
            except BaseException as late:
                error = error or late
                if failed is undo:
                    self._todo.pop()
                failed = undo
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self()

    def __del__(self) -> None:  # the end of a with block can be interrupted before it begins
        if self._todo:
            self()
