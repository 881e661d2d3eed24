"""``denoscope steer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, open_model
from ..options import JudgedRuns, PromptArg
from ..output import Output, command_line, rows, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


MeasureOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="What is measured: an attribute of the judge, 'gender=woman' (in logits), or a text, "
        "'a woman' (how well it fits the picture); once for each.",
        show_default=False,
    ),
]


def steer(  # noqa: PLR0913  # one option each
    prompt: PromptArg,
    direction: Annotated[
        Path, typer.Argument(help="A file of  denoscope direction fit.", show_default=False)
    ],
    *,
    subject: Annotated[
        str | None,
        typer.Option(help="Whose attribute is steered: a word of the prompt.", show_default=False),
    ] = None,
    strengths: Annotated[
        str, typer.Option(help="Strengths, with commas between them; 0 is always there.")
    ] = "-2,-1.5,-1,-0.5,0,0.5,1,1.5,2",
    start: Annotated[
        int, typer.Option("--from-step", help="The first step that is steered, counted from 0.")
    ] = 0,
    measure: MeasureOpt = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("steered"),
    run: JudgedRuns = JudgedRuns(seeds=2, steps=20),
    to: Output = Output(),
) -> None:
    """Paint a prompt with several strengths of a direction, from the same noise, and measure each.

    Example:  denoscope steer "a noto emoji of a judge" woman.safetensors --subject judge
    --measure gender=woman

    Writes steered.html (open it in any browser, and move the slider) and results.zarr
    (denoscope.steering.result.Steered.load).
    """
    from ...investigation.case import seeds_of
    from ...models.run.context import When
    from ...probes.direction import Direction
    from ...steering.measures import measures_of, numbers
    from ...steering.steered import steered

    check_new(output)
    tried = numbers(strengths)
    model = open_model(run, to)
    found = Direction.load(direction, model)
    measures = measures_of(measure or [], model, run.judge, run.device)
    when = When(steps=range(start, run.steps)) if start else When()
    settings: dict[str, Any] = {"steps": run.steps, "guidance": run.guidance}
    with to.bars() as show:
        made = steered(
            model, found, [prompt], seeds=seeds_of(run.chosen), strengths=tried, subject=subject,
            measures=measures, when=when, progress=show, **settings,
        )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        made.save(output / "results.zarr")
        page = made.page(output / "steered.html", command=command_line())
    frame = made.to_frame()
    to.result(
        {"page": str(page), "results": str(output / "results.zarr"), "strengths": rows(frame)},
        _means(frame),
        f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser",
        written=[page],
    )


def _means(frame: pd.DataFrame) -> Table:
    """The mean of each measure at each strength."""
    means = frame.pivot_table(index="strength", columns="metric", values="mean", sort=False)
    cells = [
        (f"{s:+g}" if s else "0", *(f"{v:.3g}" for v in row))
        for s, row in zip(means.index, means.values, strict=True)
    ]
    return table(["strength", *map(str, means.columns)], cells)
