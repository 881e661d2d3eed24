"""``denoscope generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...models.store.disk import check_writable
from ..opening import edited, open_model, trace_prompt
from ..options import GuidanceOpt, ModelOpt, PromptArg, SeedsOpt, StepsOpt
from ..output import out, progress_bars


def generate(
    prompt: PromptArg,
    *,
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for PNG files.")] = Path("pictures"),
    steps: StepsOpt = 20,
    seeds: SeedsOpt = 4,
    guidance: GuidanceOpt = None,
    edit: Annotated[Path | None, typer.Option(help="An edit to apply first.")] = None,
) -> None:
    """Generate pictures, one for each seed.

    Example:  denoscope generate "a glossy emoji of a red heart" --seeds 8 --edit edit.safetensors
    """
    from ...report.images import save_pictures

    check_writable(output)
    opened = open_model(model)
    with progress_bars() as show, edited(opened, edit):
        run = trace_prompt(opened, prompt, seeds, show, steps=steps, guidance=guidance)
        files = save_pictures(run.images, output, [f"seed-{s}" for s in run.seeds])
    out.print(f"{len(files)} pictures in [bold]{escape(str(output))}[/]", soft_wrap=True)
