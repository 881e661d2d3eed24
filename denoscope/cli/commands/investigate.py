"""``denoscope investigate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..opening import use_threads
from ..options import AboutOpt, ChangeOpt, JudgedRuns, PromptArg
from ..output import Output, command_line

if TYPE_CHECKING:
    from ...investigation.case import Case


def investigate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    change_to: ChangeOpt,
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
    """Look, find the cause, change it, check it; then write a page about it.

    Example:  denoscope investigate "a flat emoji of a dog" --about dog --change-to cat --output dog-to-cat

    Writes report.html (open it in any browser), results.zarr (all numbers), edit.safetensors (the edit) and
    run.json (seeds, versions, hashes). A run that was stopped goes on where it was, with the same command.
    First the model is asked outright for both words: what it cannot paint is not worth minutes of looking.
    """
    from ...investigation.case import Case

    run_case(Case(prompt, about, change_to, method=method, **run.case), output, to, anyway=anyway)


def run_case(case: Case, output: Path, to: Output, *, fresh: bool = False, anyway: bool = False) -> None:
    """Investigate with progress bars, then say where the page is."""
    from ...investigation.folder import keeps_stages
    from ...investigation.investigate import investigate as run

    use_threads(case.model)
    try:
        with to.bars() as show:
            found = run(case, output, command=command_line(), fresh=fresh, anyway=anyway, progress=show)
    except KeyboardInterrupt as stopped:
        if keeps_stages(output):
            stopped.add_note("The same command goes on where it stopped.")
        raise
    page = found.page
    said = f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser"
    files = {"results": "results.zarr", "edit": "edit.safetensors", "run": "run.json"}
    written = {"page": str(page), **{name: str(output / file) for name, file in files.items()}}
    to.result(written, said, written=[page])
