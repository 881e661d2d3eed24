"""``denoscope edit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..opening import open_model
from ..options import ModelOpt
from ..output import out


def edit(
    about: Annotated[str, typer.Argument(help="The word to edit.", show_default=False)],
    change_to: Annotated[str, typer.Argument(help="What it shall mean instead.", show_default=False)],
    *,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="Which layer of a text encoder, once for each that is edited; the first self-attention of "
            "all if left out.",
            show_default=False,
        ),
    ] = None,
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "edit.safetensors"
    ),
) -> None:
    """Make all text encoders read one word as another, in closed form (Diff-QuickFix).

    Example:  denoscope edit firefighter cook --output cook.safetensors
    """
    from ...editing.methods.quickfix import quickfix

    made = quickfix(open_model(model), {about: change_to}, site=site)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    out.print(f"{escape(repr(made))}\nin [bold]{escape(str(output))}[/]", soft_wrap=True)
    for place, parts in made.note["reaches"].items():
        out.print(f"{escape(place)}: reaches the denoiser by {' and '.join(parts)}", soft_wrap=True)
    if made.note["unedited"]:
        out.print(f"left as before: {', '.join(made.note['unedited'])}", soft_wrap=True)
