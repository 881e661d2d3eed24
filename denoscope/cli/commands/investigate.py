"""``denoscope investigate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import use_threads
from ..options import AboutOpt, Goals, JudgedRuns, PromptArg
from ..output import Output, command_line, duration, percent, rows, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from ...investigation.case import Case, Setup


def investigate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    goals: Goals = Goals(),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("investigation"),
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on where the model cannot paint one of the words.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="How it is edited: quickfix or locoedit at the place that was found; uce or nullspace in "
            "all layers of the denoiser that read the text; refact or memit in the text encoder's MLPs. "
            "If left out, by what the benchmark found best (docs/bench-edits.md), and the page says why.",
        ),
    ] = None,
    run: JudgedRuns = JudgedRuns(),
    to: Output = Output(),
) -> None:
    """Look, find the cause, try every change that follows, check the best; then write a page about it.

    Example:  denoscope investigate "a flat emoji of a dog" --about dog --change-to cat --output dog-to-cat

    Example:  denoscope investigate "a noto emoji of a cook" --about cook --steer woman --with directions

    Writes report.html (open it in any browser), results.zarr (all numbers), changes.parquet (the table of
    changes), changes/ (each as a file), edit.safetensors (the edit that is shown in full) and run.json
    (seeds, versions, hashes). A run that was stopped goes on where it was, with the same command. First the
    model is asked outright for both words: what it cannot paint is not worth minutes of looking.
    """
    from ...investigation.case import Case

    run_case(Case(prompt, about, method=method, **goals.case, **run.case), output, to, anyway=anyway)


def run_case(case: Case, output: Path, to: Output, *, fresh: bool = False, anyway: bool = False) -> None:
    """Investigate with progress bars, then say where the page is."""
    from ...investigation.folder import keeps_stages
    from ...investigation.investigate import investigated, ready

    use_threads(case.model)
    with to.status(f"opening {case.model}"):
        setup = ready(case)
    if not keeps_stages(output):
        tell_expected(setup, to)
    how: dict[str, Any] = {"command": command_line(), "fresh": fresh, "anyway": anyway}
    try:
        with to.bars() as show:
            found = investigated(setup, output, progress=show, **how)
    except KeyboardInterrupt as stopped:
        if keeps_stages(output):
            stopped.add_note("The same command goes on where it stopped.")
        raise
    page, frame = found.page, found.to_frame()
    said = f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser"
    files = {
        "results": "results.zarr",
        "table": "changes.parquet",
        "edit": "edit.safetensors",
        "run": "run.json",
    }
    there = {name: str(output / file) for name, file in files.items() if (output / file).exists()}
    told = {"page": str(page), **there, "best": found.best, "why": found.table.why, "changes": rows(frame)}
    to.result(told, _table(frame, found.best), f"\n{escape(found.table.why)}", said, written=[page])


def tell_expected(setup: Setup, to: Output) -> None:
    """Say on standard error what it will take, stage by stage."""
    from ...investigation.counting import expected

    with to.status("counting what it will take"):
        plan = expected(setup)
    cells = [(name, f"{n:,}", duration(n / plan.pace)) for name, n in plan.rows.items()]
    whole = ("all, at most", f"{sum(plan.rows.values()):,}", duration(plan.seconds))
    to.aside(table(["stage", "network rows", "about"], [*cells, whole]))


def _table(frame: pd.DataFrame, best: str | None) -> Table:
    """What each change reached, and what it kept."""
    cells = []
    for row in frame.to_dict("records"):
        shares = [percent(row, name) for name in ("efficacy", "generality", "specificity")]
        mark = " (best)" if row["change"] == best else ""
        cells.append((f"{row['change']}{mark}", row["analysis"], *shares, row["where"]))
    return table(["change", "offered by", "reached", "other wordings", "others kept", "where"], cells)
