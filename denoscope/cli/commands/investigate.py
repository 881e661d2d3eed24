"""``denoscope investigate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..opening import use_threads
from ..options import AboutOpt, ChangeOpt, GuidanceOpt, ModelOpt, PromptArg, SeedsOpt, StepsOpt
from ..output import command_line, out, progress_bars

if TYPE_CHECKING:
    from ...investigation.case import Case


def investigate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    change_to: ChangeOpt,
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("investigation"),
    steps: StepsOpt = 10,
    seeds: SeedsOpt = 4,
    guidance: GuidanceOpt = None,
) -> None:
    """Look, find the cause, change it, check it; then write a page about it.

    Example:  denoscope investigate "a flat emoji of a dog" --about dog --change-to cat --output dog-to-cat

    Writes report.html (open it in any browser), results.zarr (all numbers), edit.safetensors (the edit) and
    run.json (seeds, versions, hashes). A run that was stopped goes on where it was, with the same command.
    """
    from ...investigation.case import Case

    run_case(Case(prompt, about, change_to, model, seeds, steps, guidance), output)


def run_case(case: Case, output: Path, fresh: bool = False) -> None:
    """Investigate with progress bars, then say where the page is."""
    from ...investigation.folder import keeps_stages
    from ...investigation.investigate import investigate as run

    use_threads(case.model)
    try:
        with progress_bars() as show:
            page = run(case, output, command=command_line(), fresh=fresh, progress=show)
    except KeyboardInterrupt as stopped:
        if keeps_stages(output):
            stopped.add_note("The same command goes on where it stopped.")
        raise
    out.print(f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser", soft_wrap=True)
