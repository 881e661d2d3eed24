"""What the commands show: results on stdout, progress and faults on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from ..models.progress import Progress, bars, quiet

if TYPE_CHECKING:
    import pandas as pd

out = Console()
err = Console(stderr=True)


@dataclass(frozen=True)
class Output:
    """How a command tells what it found."""

    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and no more.")] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; of what was written, the paths alone.")
    ] = False

    def result(self, found: Mapping[str, Any], *shown: RenderableType, written: Iterable[Path] = ()) -> None:
        """Print what was found, on stdout: as JSON, as the paths of what was written, or as it is shown.

        Args:
            found: all of it, for a program.
            shown: the same, for a reader.
            written: the files or folders that hold it; without any, ``shown`` is printed in their place.
        """
        paths = [str(path) for path in written]
        if self.as_json:
            typer.echo(json.dumps(_finite(found), indent=1, default=str, ensure_ascii=False))
        elif self.quiet and paths:
            typer.echo("\n".join(paths))
        else:
            for one in shown:
                # where stdout is no terminal, wide enough to be read by a program
                wide = isinstance(one, Table) and not out.is_terminal
                (Console(width=200) if wide else out).print(one, soft_wrap=not isinstance(one, Table))

    def aside(self, shown: RenderableType) -> None:
        """Tell a reader something on stderr; nothing where it is to be quiet, or for a program."""
        if not (self.quiet or self.as_json):
            err.print(shown)

    @contextmanager
    def bars(self) -> Iterator[Progress]:
        """A bar for each stage, on stderr."""
        if self.quiet:
            yield quiet
            return
        with bars(err) as show:
            yield show

    @contextmanager
    def status(self, what: str) -> Iterator[None]:
        """Say what takes its time, on stderr, for as long as it does."""
        if self.quiet:
            yield
            return
        with err.status(escape(what)):
            yield


def duration(seconds: float) -> str:
    """Return a time as it is read."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes > 59 else f"{minutes} min {rest} s"


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as records of JSON; NaN is null."""
    found: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return found


def percent(row: Mapping[str, Any], name: str) -> str:
    """Return a share with its interval, ``name``, ``name_low`` and ``name_high`` of a row; empty for NaN.

    >>> percent({"x": 0.5, "x_low": 0.25, "x_high": 0.75}, "x")
    '50% (25% to 75%)'
    """
    mean, low, high = (row[f"{name}{side}"] for side in ("", "_low", "_high"))
    if math.isnan(mean):
        return ""
    return f"{mean:.0%}" if math.isnan(low) else f"{mean:.0%} ({low:.0%} to {high:.0%})"


def table(columns: Iterable[str], cells: Iterable[Iterable[Any]]) -> Table:
    """Return a table whose first column is names, and whose others are numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in cells:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def command_line() -> str:
    """The command line as it was typed, to be shown on the page."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _finite(found: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(found, Mapping):
        return {str(k): _finite(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(v) for v in found]
    return None if isinstance(found, float) and math.isnan(found) else found
