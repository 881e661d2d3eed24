"""``denoscope locate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...models.progress import called
from ..opening import check_new, use_threads
from ..options import AboutOpt, JudgedRuns, PromptArg
from ..output import Output, rows, table

SHOWN = 12


def locate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    inside: Annotated[
        str | None,
        typer.Option(
            "--in",
            help="text_encoder, unet, transformer; the text encoder that carries most if left out.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A zarr store for all scores.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--table", help="A CSV file for the table of all places.")
    ] = None,
    run: JudgedRuns = JudgedRuns(seeds=2),
    to: Output = Output(),
) -> None:
    """Find which states carry a word of the prompt into the picture: causal mediation.

    The places whose restoration comes nearest to the clean run come first; an investigation edits there.

    Example:  denoscope locate "a noto emoji of a woman firefighter" --about firefighter
    """
    from ...investigation.case import Case
    from ...investigation.folder import write_text
    from ...investigation.single import locate as find
    from ...report.causal_map import CausalMap
    from ...report.plain import with_interval

    check_new(output, csv)
    use_threads(run.model)
    with to.bars() as show:
        case = Case(prompt, about, "", **run.case)
        found = find(case, inside, called(show, "restoring states"))
        if output is not None:
            found.save(output)
    told = CausalMap.of(found)
    frame = told.ranked()[[*found.restored.places, "mean", "low", "high"]]
    if csv is not None:
        write_text(csv, frame.to_csv(index=False))
    total = dict(zip(("mean", "low", "high"), told.total, strict=True))
    whole = {"about": about, "metric": told.metric, "total": total, "unit": told.scale[0]}
    places = [name for name in frame.columns if name not in total]
    cells = [(*(p[name] for name in places), told.number(p)) for _, p in frame.head(SHOWN).iterrows()]
    to.result(
        {**whole, "site": frame["site"][0], "places": rows(frame)},
        f"[bold]{escape(about)}[/] changes the {escape(told.metric)} by {with_interval(*told.total, False)}",
        table([*places, f"{told.scale[0]} (95% interval)"], cells),
    )
