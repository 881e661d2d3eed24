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
        str, typer.Option(help="Which layer of the text encoder.")
    ] = "text_encoder/layer.0/self_attn.out",
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "edit.safetensors"
    ),
) -> None:
    """Make the text encoder read one word as another, in closed form (Diff-QuickFix).

    Example:  denoscope edit firefighter cook --output cook.safetensors
    """
    from ...editing.methods.quickfix import quickfix

    made = quickfix(open_model(model), {about: change_to}, site=site)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    out.print(f"{escape(repr(made))}\nin [bold]{escape(str(output))}[/]", soft_wrap=True)
