"""One way to tell how far long work is, and two ways to show it.

Whatever takes long takes ``progress: Progress | None`` and calls it with (done, total, what). A caller that
gives none gets a bar by itself, if the work takes longer than two seconds and somebody watches: a terminal or
a notebook.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from tqdm.std import tqdm  # its text bar needs no widgets

AFTER = 2.0
"""Seconds of work before a bar comes by itself."""


@runtime_checkable
class Progress(Protocol):
    """Called now and then, with how much is done, of how much, and what it is."""

    def __call__(self, done: int, total: int, what: str, /) -> None:
        """Take note; ``done == total`` is the end of this ``what``."""


def quiet(done: int, total: int, what: str, /) -> None:
    """Show nothing."""


def called(progress: Progress, what: str) -> Progress:
    """Return a progress that says ``what`` in place of what the work below calls itself."""
    return lambda done, total, _, /: progress(done, total, what)


def part(progress: Progress, before: int, size: int, total: int, what: str = "") -> Progress:
    """Return the progress of one part, told as that of the whole.

    Args:
        progress: of the whole.
        before: how much of the whole was done before this part.
        size: how much of the whole this part is.
        total: the whole.
        what: how to call it; empty keeps what the part says.
    """

    def told(done: int, of: int, said: str, /) -> None:
        progress(before + size * done // max(of, 1), total, what or said)

    return told


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Show one bar for each ``what``, on the command line; the finished ones stay."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<40}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=console) as shown:
        tasks: dict[str, Any] = {}

        def show(done: int, total: int, what: str, /) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(escape(what), total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield show


@contextmanager
def showing(progress: Progress | None = None) -> Iterator[Progress]:
    """Give what to tell progress to: the caller's own, or a bar that comes by itself and goes with the work.

    Work inside that takes a progress too is given this one (or a ``part`` of it), so that there is one bar.
    ``TQDM_DISABLE=1`` in the environment keeps the bars away.

    Args:
        progress: the caller's own; None is a bar, if somebody watches.
    """
    if progress is not None or not _watched():
        yield progress or quiet
        return
    start, shown = time.monotonic(), dict[str, Any]()

    def show(done: int, total: int, what: str, /) -> None:
        if what not in shown:
            if done >= total or time.monotonic() - start < AFTER:
                return
            shown[what] = _bar(desc=what, initial=done, total=total, leave=False)
        shown[what].total = total
        shown[what].update(done - shown[what].n)

    try:
        yield show
    finally:
        for bar in shown.values():
            bar.close()


def _bar(**settings: Any) -> Any:
    """A bar of tqdm's: a widget in a notebook that has widgets, else text; not in red, as errors are."""
    if not _in_notebook():
        return tqdm(**settings, file=sys.stderr)
    if find_spec("ipywidgets"):
        return import_module("tqdm.notebook").tqdm(**settings)
    return tqdm(**settings, file=sys.stdout)


def _watched() -> bool:
    """Whether standard error is a terminal, or this is a notebook; tqdm's widgets do not ask TQDM_DISABLE."""
    unwanted = os.environ.get("TQDM_DISABLE", "0") not in {"", "0"}
    return not unwanted and (_in_notebook() or sys.stderr.isatty())


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")
