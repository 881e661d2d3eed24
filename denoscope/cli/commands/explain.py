"""``denoscope explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, open_model
from ..options import Opening, PromptArg
from ..output import Output, command_line, rows, table


def explain(  # noqa: PLR0913  # one option each
    prompt: PromptArg,
    *,
    image: Annotated[
        Path | None,
        typer.Option(help="A picture of your own that the prompt describes, in place of a generated one."),
    ] = None,
    word: Annotated[
        list[str] | None,
        typer.Option(
            help="A word or phrase of the prompt to explain; once for each. All but articles and the like "
            "if left out; 'cook:2' is the second cook.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the picture; of the noise, on a picture of your own.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; 20 if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own if left out.")] = (
        None
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("explanation"),
    how: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """Say what each word of a prompt does to one picture, alone and in pairs; write a page to explore it.

    Example:  denoscope explain "a noto emoji of a woman firefighter with dark skin" --seed 3

    Example:  denoscope explain "a red heart" --word red --word heart --output heart

    Writes explanation.html (open it in any browser: point at a word, click two) and results.zarr (all
    numbers; denoscope.explanation.Explanation.load). Four kinds of maps answer four questions: what a word
    tells of the picture that no other word tells, where it is read, where the model sees what it names, and
    which places decide how far it moves the prediction. What it causes is asked of  denoscope investigate.
    """
    from ...explanation.explain import explain as run

    check_new(output)
    model = open_model(how, to)
    with to.bars() as show:
        settings: dict[str, Any] = {"steps": steps, "guidance": guidance, "progress": show}
        found = run(model, prompt, image=image, words=word or None, seed=seed, **settings)
        output.mkdir(parents=True, exist_ok=True)
        found.save(output / "results.zarr")
        page = found.page(output / "explanation.html", command=command_line())
    frame, pairs = found.to_frame(), found.pairs_to_frame()
    cells = [(r.word, f"{r.nats:.3g}", f"{r.low:.3g} to {r.high:.3g}") for r in frame.itertuples()]
    to.result(
        {
            "page": str(page),
            "results": str(output / "results.zarr"),
            "words": rows(frame),
            "pairs": rows(pairs),
        },
        table(["word", "nats that no other word tells", "95% interval"], cells),
        f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser",
        written=[page],
    )
