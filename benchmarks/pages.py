"""Numbers go into pages by command, each between its ``<!-- name -->`` and ``<!-- /name -->``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def write(page: str, name: str, text: str) -> None:
    """Put ``text`` between a page's markers; ``page`` is a path from the top of the checkout.

    Raises:
        SystemExit: the page does not have the pair of markers exactly once.
    """
    path = ROOT / page
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    new, n = between.subn(lambda m: f"{m[1]}{text.rstrip()}\n{m[2]}", path.read_text())
    if n != 1:
        raise SystemExit(f"{page} has the markers <!-- {name} --> and <!-- /{name} --> {n} times, not once")
    path.write_text(new)


def output(doc: str | None) -> Path:
    """Where a command keeps what it measures: ``--output``, or build/findings."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings")
    found: Path = parser.parse_args().output
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bounds(row: Mapping[Any, Any], digits: int = 2) -> str:
    """A mean and its interval: ``0.92 [0.82, 1.03]``."""
    mean, low, high = (f"{round(float(row[k]), digits) + 0.0:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
