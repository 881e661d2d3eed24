"""Faults a user can mend are told in a line or two; bugs show their place.

Exit codes: 2 refused (what was asked for cannot be done, nothing began), 1 failed (the machine gave out, or a
bug), 130 interrupted.
"""

from __future__ import annotations

import errno
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from ..models.errors import DenoscopeError
from .output import err

REFUSED, FAILED, INTERRUPTED = 2, 1, 130
GIVEN_OUT = {errno.ENOSPC, errno.EDQUOT, errno.EIO}  # the command was right
FIXES = {
    errno.ENOSPC: "the disk is full; free some space, or name another folder with --output",
    errno.EDQUOT: "the disk quota is used up; free some space, or name another folder with --output",
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
            raise typer.Exit(INTERRUPTED) from None
        except (DenoscopeError, OSError) as error:
            if ctx.params.get("debug") or not _mendable(error):
                raise
            err.print(f"[bold red]error:[/] {escape(tell(error))}", soft_wrap=True, highlight=False)
            for note in getattr(error, "__notes__", []):  # what to do, where a line does not hold it
                err.print(escape(note), soft_wrap=True, highlight=False)
            gave_out = getattr(error, "errno", None) in GIVEN_OUT
            raise typer.Exit(FAILED if gave_out else REFUSED) from None


def _mendable(error: BaseException) -> bool:
    """Whether it is of our own making, or the system's: an OSError without a number is some library's.

    A reader who has seen enough (``| head``) is no fault: typer ends quietly then.
    """
    if isinstance(error, BrokenPipeError):
        return False
    return isinstance(error, DenoscopeError) or getattr(error, "errno", None) is not None


def tell(error: BaseException) -> str:
    """Return a fault in one line, with what to do about it where that is known."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        fix = FIXES.get(error.errno)
        return f"{where}{fix or error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
