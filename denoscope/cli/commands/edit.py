"""``denoscope edit``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ...models.store.disk import check_writable
from ..opening import check_new, open_model
from ..options import Opening
from ..output import Output

if TYPE_CHECKING:
    from ...editing.edit import Edit

SiteOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="A layer of a text encoder to edit, once for each; the first self-attention of every one if "
        "left out.",
        show_default=False,
    ),
]
TemplateOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="A wording with {} for the word, once for each; the prompt's own and others if left out.",
        show_default=False,
    ),
]
KeepOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="A text that must be read as before, once for each; if left out, the empty one and other things "
        "in the prompt's wording.",
        show_default=False,
    ),
]


def edit(
    about: Annotated[str, typer.Argument(help="The word to edit.", show_default=False)],
    change_to: Annotated[str, typer.Argument(help="What it shall mean instead.", show_default=False)],
    *,
    prompt: Annotated[
        str | None,
        typer.Option(help="The prompt whose wording is edited first of all; it holds the word."),
    ] = None,
    site: SiteOpt = None,
    template: TemplateOpt = None,
    keep: KeepOpt = None,
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

    check_writable(output.parent) if force else check_new(output)
    model = open_model(opening, to)
    made = make(model, opening.model, about, change_to, prompt, site=site, templates=template, keep=keep)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    words = [word for pair in made.note["requests"].items() for word in pair]
    pieces = {word: cut for word in words if (cut := in_pieces(model, word, word))}
    found = {"edit": str(output), "id": made.id, "kept": len(made.note["keep"]), "pieces": pieces}
    found |= {name: made.note[name] for name in ("reaches", "unedited")}
    to.result(found, *_told(made, output, pieces), written=[output])


def _told(made: Edit, output: Path, pieces: dict[str, Any]) -> Iterator[str]:
    """What is said of an edit, a line each."""
    from ...report.asked import tell_pieces

    yield f"{escape(repr(made))}\nin [bold]{escape(str(output))}[/]"
    for site, parts in made.note["reaches"].items():
        yield f"{escape(site)}: reaches the denoiser by {' and '.join(parts)}"
    if made.note["unedited"]:
        yield f"left as before: {', '.join(made.note['unedited'])}"
    for cut in pieces.values():
        yield f"note: {escape(tell_pieces(cut))}"
