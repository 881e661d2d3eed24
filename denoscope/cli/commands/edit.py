"""``denoscope edit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...models.store.disk import check_writable
from ..opening import check_new, open_model
from ..options import Opening
from ..output import Output


def edit(
    about: Annotated[str, typer.Argument(help="The word to edit.", show_default=False)],
    change_to: Annotated[str, typer.Argument(help="What it shall mean instead.", show_default=False)],
    *,
    prompt: Annotated[
        str | None,
        typer.Option(help="The prompt whose wording is edited first of all; it holds the word."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="Which layer of a text encoder, once for each that is edited; the first self-attention of "
            "all if left out.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="A wording with {} for the word, once for each; if left out, the prompt's own and four "
            "general ones.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="A text that must be read as before, once for each; if left out, the empty one and other "
            "things in the prompt's wording.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "edit.safetensors"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    opening: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """Make all text encoders read one word as another, in closed form (Diff-QuickFix).

    Example:  denoscope edit firefighter cook --output cook.safetensors

    Example:  denoscope edit firefighter cook --prompt "a noto emoji of a woman firefighter" --force

    With --prompt, and with the --site that  denoscope locate  names, it is the edit that  denoscope
    investigate  makes.
    """
    from ...investigation.pieces import in_pieces
    from ...investigation.single import edit as make
    from ...report.asked import tell_pieces

    check_writable(output.parent) if force else check_new(output)
    model = open_model(opening, to)
    made = make(model, opening.model, about, change_to, prompt, site=site, templates=template, keep=keep)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    reaches, unedited = made.note["reaches"], made.note["unedited"]
    said = [f"{escape(repr(made))}\nin [bold]{escape(str(output))}[/]"]
    said += [f"{escape(at)}: reaches the denoiser by {' and '.join(by)}" for at, by in reaches.items()]
    said += [f"left as before: {', '.join(unedited)}"] if unedited else []
    pieces = {word: cut for word in (about, change_to) if (cut := in_pieces(model, word, word))}
    said += [f"note: {escape(tell_pieces(cut))}" for cut in pieces.values()]
    found = {"edit": str(output), "id": made.id, "reaches": reaches, "unedited": unedited}
    to.result({**found, "kept": len(made.note["keep"]), "pieces": pieces}, *said, written=[output])
