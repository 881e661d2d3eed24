"""What the commands show: results on stdout, progress and faults on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..models.progress import Progress, bars

if TYPE_CHECKING:
    import pandas as pd

out = Console()
err = Console(stderr=True)


def print_frame(frame: pd.DataFrame) -> None:
    """Print a table; where stdout is no terminal, wide enough to be read by a program."""
    table = Table(*map(str, frame.columns), box=None)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else escape(str(v)) for v in row))
    (out if out.is_terminal else Console(width=200)).print(table)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar for each stage, on stderr."""
    with bars(err) as show:
        yield show


def command_line() -> str:
    """The command line as it was typed, to be shown on the page."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
