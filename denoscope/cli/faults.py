"""Faults a user can mend are told in a line or two: exit code 2, 130 after Ctrl-C; bugs show their place."""

from __future__ import annotations

import errno
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from ..models.errors import DenoscopeError
from .output import err

FIXES = {
    errno.ENOSPC: "the disk is full; free some space, or name another folder with --output",
    errno.EROFS: "the disk is read-only; name another folder with --output",
    errno.EACCES: "writing is not allowed there; name another folder with --output",
    errno.EEXIST: "a file stands where a folder is needed; name another folder with --output",
    errno.ENOTDIR: "a file stands where a folder is needed; name another folder with --output",
}


class Plain(TyperGroup):
    """Turns our own errors, and those of the disk, into one line; ``--debug`` shows them whole."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            notes = getattr(stopped, "__notes__", [])
            err.print(" ".join(["[bold]stopped[/]; nothing half-written is left.", *map(escape, notes)]))
            raise typer.Exit(130) from None
        except (DenoscopeError, OSError) as error:
            if ctx.params.get("debug") or not _mendable(error):
                raise
            err.print(f"[bold red]error:[/] {escape(tell(error))}", soft_wrap=True, highlight=False)
            for note in getattr(error, "__notes__", []):  # what to do, where a line does not hold it
                err.print(escape(note), soft_wrap=True, highlight=False)
            raise typer.Exit(2) from None


def _mendable(error: BaseException) -> bool:
    """Whether it is of our own making, or the system's: an OSError without a number is some library's."""
    return isinstance(error, DenoscopeError) or getattr(error, "errno", None) is not None


def tell(error: BaseException) -> str:
    """Return a fault in one line, with what to do about it where that is known."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        fix = FIXES.get(error.errno)
        return f"{where}{fix or error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
