"""``denoscope bench``: comparisons on many concepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import open_model
from ..options import JudgedRuns
from ..output import Output, err, rows, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

MEASURES = ("efficacy", "generality", "neighbours", "bystanders")


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    methods: Annotated[
        str | None,
        typer.Option(
            help="Which methods, with commas between them: quickfix,uce,uce/code; the ten of "
            "docs/bench-edits.md if left out.",
            show_default=False,
        ),
    ] = None
    concepts: Annotated[
        str | None,
        typer.Option(
            help="A CSV file of concepts, of our layout, TIMED's or RoAD's; or of those that ship a number, "
            "or words and kinds with commas between them: fox,style. All 50 if left out.",
            show_default=False,
        ),
    ] = None
    many: Annotated[str, typer.Option(help="How many edits are tried beside each other; empty for none.")] = (
        "10,50"
    )
    quick: Annotated[
        bool, typer.Option("--quick", help="One concept of each kind, two seeds: a first look.")
    ] = False

    @property
    def asked(self) -> dict[str, Any]:
        """What ``denoscope.bench.edits`` takes."""
        return {
            "methods": None if self.methods is None else _parts(self.methods),
            "concepts": None if self.concepts is None else _concepts(self.concepts),
            "many": _numbers(self.many),
            "quick": self.quick,
        }


def edits(
    *,
    output: Annotated[Path, typer.Option("--output", "--folder", "-o", help="Folder to write.")] = Path(
        "bench-edits"
    ),
    what: Comparison = Comparison(),
    run: JudgedRuns = JudgedRuns(seeds=8, steps=5),
    to: Output = Output(),
) -> None:
    """Compare methods of editing: what they reach, what else they move, what they cost.

    Example:  denoscope bench edits --quick --methods quickfix,uce

    Example:  denoscope bench edits --concepts TIMED_test_set.csv --model CompVis/stable-diffusion-v1-4
    --judge openai/clip-vit-large-patch14

    Writes report.html, results.json and Parquet tables. It says first what it costs; a run that was stopped
    goes on where it was, with the same command.
    """
    from ...bench.costing import cost
    from ...bench.running import edits as compare
    from ...models.store.disk import check_writable

    check_writable(output)
    asked = {**what.asked, "seeds": run.chosen, "steps": run.steps, "guidance": run.guidance}
    asked |= {"judge": run.judge, "folder": output}
    model = open_model(run, to)
    with to.status("counting what is left to do"):
        price = cost(model, **asked)
    if not to.quiet:
        err.print(escape(str(price)), soft_wrap=True, highlight=False)
    try:
        with to.bars() as show:
            found = compare(model, **asked, progress=show)
    except KeyboardInterrupt as stopped:
        stopped.add_note("The same command goes on where it stopped.")
        raise
    summary, page = found.summary(), output / "report.html"
    told: dict[str, Any] = {
        "page": str(page),
        "results": str(output / "results.json"),
        "about": found.about,
    }
    told |= {"summary": rows(summary), "cells": rows(found.cells), "many": rows(found.many)}
    said = f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser"
    to.result(told, _table(summary, found.cells), said, written=[page])


def _table(summary: pd.DataFrame, cells: pd.DataFrame) -> Table:
    """One row for each method, after its edits."""
    from ...report.plain import with_interval

    after = summary[summary["state"] == "after"]
    said = {
        (row.method, row.measure): with_interval(row.mean, row.low, row.high, True)
        for row in after.itertuples()
    }
    lines = []
    for method in dict.fromkeys(cells["method"]):
        own = cells[cells["method"] == method]
        done = f"{int(own['reason'].isna().sum())} of {len(own)}"
        lines.append((method, done, *(said.get((method, m), "-") for m in MEASURES)))
    return table(["method", "concepts", *MEASURES], lines)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _concepts(text: str) -> Any:
    """A file, a number, or names."""
    if text.isdigit():
        return int(text)
    return Path(text) if text.endswith(".csv") or Path(text).is_file() else _parts(text)


def _numbers(text: str) -> list[int]:
    from ...models.errors import UsageError

    try:
        return [int(part) for part in _parts(text)]
    except ValueError:
        raise UsageError(
            f"--many is {text!r}; write whole numbers with commas between them: --many 10,50"
        ) from None
