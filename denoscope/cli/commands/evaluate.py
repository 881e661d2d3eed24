"""``denoscope evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...models.progress import called
from ..opening import check_new, use_threads
from ..options import JudgedRuns, PromptArg
from ..output import Output, rows, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

STATES = {"before": "before", "after": "after", "oracle": "asked outright"}


def evaluate(
    file: Annotated[Path, typer.Argument(help="An edit.", show_default=False)],
    prompt: PromptArg,
    *,
    about: Annotated[
        str | None,
        typer.Option(help="The word of the prompt to ask about; the edit's own if left out."),
    ] = None,
    change_to: Annotated[
        str | None, typer.Option(help="What it shall mean instead; the edit's own if left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A CSV file for each picture's numbers.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--table", help="A CSV file for the table.")] = None,
    run: JudgedRuns = JudgedRuns(),
    to: Output = Output(),
) -> None:
    """Say whether an edit works, and what else it moves: before and after, under the same seeds.

    Example:  denoscope evaluate edit.safetensors "a noto emoji of a woman firefighter"

    Example:  denoscope evaluate edit.safetensors "a noto emoji of a woman firefighter"
    --about firefighter --change-to cook
    """
    from ...editing.edit import Edit
    from ...investigation.case import Case
    from ...investigation.folder import write_text
    from ...investigation.single import asked_of
    from ...investigation.single import evaluate as check

    check_new(output, csv)
    made = Edit.load(file)
    words = asked_of(made, about, change_to)
    use_threads(run.model)
    with to.bars() as show:
        found = check(Case(prompt, *words, **run.case), made, called(show, "before and after"))
    summary = found.summary()
    for path, frame in ((output, found.to_frame()), (csv, summary)):
        if path is not None:
            write_text(path, frame.to_csv(index=False))
    to.result({"about": words[0], "change_to": words[1], "summary": rows(summary)}, _table(summary))


def _table(summary: pd.DataFrame) -> Table:
    """One row for each kind and measure, one column for each state."""
    from ...report.plain import with_interval

    cells = {
        (row.kind, row.measure, row.state): with_interval(row.mean, row.low, row.high, row.measure != "fit")
        for row in summary.itertuples()
    }
    names = dict.fromkeys((kind, measure) for kind, measure, _ in cells)
    lines = [(kind, measure, *(cells.get((kind, measure, s), "") for s in STATES)) for kind, measure in names]
    return table(["kind", "measure", *STATES.values()], lines)
