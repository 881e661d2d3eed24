"""``denoscope demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import Seeds
from ..output import Output
from .investigate import run_case


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("denoscope-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Mediation alone, without directions.")] = False,
    seeds: Seeds = Seeds(seeds=2),
    to: Output = Output(),
) -> None:
    """Do the whole loop on the embedded model: a firefighter becomes a cook. Some two minutes."""
    from ...investigation.case import Case

    case = Case(
        "a noto emoji of a woman firefighter",
        "firefighter",
        "cook",
        seeds=seeds.chosen,
        steps=5,
        draws=1,
        analyses=("mediation",) if quick else ("mediation", "directions"),
    )
    run_case(case, output, to, fresh=True)
