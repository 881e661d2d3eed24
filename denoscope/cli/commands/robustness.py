"""``denoscope robustness``."""

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


def robustness(
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
    probe: Annotated[
        list[str] | None,
        typer.Option(
            help="paraphrase, clean_embeddings, completion, noised, invert, embedding, relearn; "
            "once for each, all if left out."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The cheap probes alone, with a small budget.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A zarr store for all numbers.", show_default=False)
    ] = None,
    csv: Annotated[Path | None, typer.Option("--table", help="A CSV file for the table.")] = None,
    run: JudgedRuns = JudgedRuns(),
    to: Output = Output(),
) -> None:
    """Say whether what an edit took away is gone: what comes back when somebody tries, beside controls.

    Some five minutes on the embedded model, one with --quick.

    Example:  denoscope robustness edit.safetensors "a noto emoji of a woman firefighter" --quick
    """
    from ...editing.edit import Edit
    from ...investigation.case import Case
    from ...investigation.folder import write_text
    from ...investigation.single import asked_of
    from ...investigation.single import robustness as tried

    check_new(output, csv)
    made = Edit.load(file)
    words = asked_of(made, about, change_to)
    use_threads(run.model)
    with to.bars() as show:
        case, what = Case(prompt, *words, **run.case), called(show, "trying to get it back")
        found = tried(case, made, what, probes=probe or None, quick=quick)
        if output is not None:
            found.save(output)
    frame = found.to_frame()
    if csv is not None:
        write_text(csv, frame.to_csv(index=False))
    told = {"about": words[0], "change_to": words[1], "measure": str(found.data.attrs["measure"])}
    to.result({**told, "clean_rows_bring_it_back": found.reaches_clean, "trials": rows(frame)}, _table(frame))


def _table(frame: pd.DataFrame) -> Table:
    """One row for each trial."""
    from ...report.plain import with_interval

    cells = [
        (
            f"{row.probe}: {row.attack}",
            row.who,
            "" if row.budget != row.budget else f"{row.budget:g}",
            row.rows or "",
            with_interval(row.mean, row.low, row.high, False),
            "" if row.recovered != row.recovered else f"{row.recovered:.2f}",
        )
        for row in frame.itertuples()
    ]
    return table(["attack", "model", "budget", "rows", "shown (95% interval)", "recovered"], cells)
