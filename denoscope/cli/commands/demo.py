"""``denoscope demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .investigate import run_case


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("denoscope-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and steps: under a minute.")] = False,
) -> None:
    """Do the whole loop on the embedded model: a firefighter becomes a cook. Some three minutes."""
    from ...investigation.case import Case

    case = Case("a noto emoji of a woman firefighter", "firefighter", "cook")
    run_case(case.quicker() if quick else case, output, fresh=True)
