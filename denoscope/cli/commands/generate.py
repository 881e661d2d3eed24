"""``denoscope generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...models.store.disk import check_writable
from ..opening import edited, open_model, trace_prompt
from ..options import PromptArg, Runs
from ..output import Output


def generate(
    prompt: PromptArg,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for PNG files.")] = Path("pictures"),
    edit: Annotated[Path | None, typer.Option(help="An edit to apply first.")] = None,
    run: Runs = Runs(steps=20),
    to: Output = Output(),
) -> None:
    """Generate pictures, one for each seed.

    Example:  denoscope generate "a glossy emoji of a red heart" --seeds 8 --edit edit.safetensors
    """
    from ...report.images import save_pictures

    check_writable(output)
    model = open_model(run, to)
    with to.bars() as show, edited(model, edit):
        made = trace_prompt(model, prompt, run, show)
        files = save_pictures(made.images, output, [f"seed-{s}" for s in made.seeds])
    said = f"{len(files)} pictures in [bold]{escape(str(output))}[/]"
    to.result({"pictures": list(map(str, files)), "seeds": list(made.seeds)}, said, written=files)
