"""Ctrl-C at a chosen moment: wherever Python would hear of a signal, a KeyboardInterrupt can be raised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# Python looks for signals when a function begins, and when one written in C has come to its end
HEARD = ("call", "c_return")


def moments(run: Callable[[], Any]) -> int:
    """Return how many moments there are in which a run can be interrupted."""
    return _profiled(run, None)


def interrupt(run: Callable[[], Any], moment: int) -> bool:
    """Interrupt a run at one of its moments; return whether it came to that."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None  # a moment may lie in a destructor
    try:
        _profiled(run, moment)
    except BaseException as error:
        while not isinstance(error, KeyboardInterrupt) and error.__context__ is not None:
            error = error.__context__  # a lock of some library, released before it was held
        if not isinstance(error, KeyboardInterrupt):
            raise
        return True
    finally:
        sys.unraisablehook = before
    return False


def _profiled(run: Callable[[], Any], moment: int | None) -> int:
    seen = 0

    def heard(frame: Any, event: str, _: Any) -> None:
        nonlocal seen
        if event in HEARD and frame.f_code is not own:
            seen += 1
            if seen - 1 == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    own = _profiled.__code__
    sys.setprofile(heard)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen
