"""``denoscope features train`` and ``denoscope features browse``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, open_model
from ..options import JudgedRuns, Runs
from ..output import Output, command_line, rows, table

if TYPE_CHECKING:
    from ...models.base import Model
    from ...probes.dictionary import Dictionary

PromptsOpt = Annotated[
    Path | None,
    typer.Option(
        help="A file of prompts, one a line, that take turns over the seeds; leave out for a model that "
        "reads no text.",
        show_default=False,
    ),
]


SiteArg = Annotated[
    str, typer.Argument(help="Whose channels ('denoscope sites' lists them).", show_default=False)
]
WidthOpt = Annotated[
    int | None, typer.Option(help="How many; four for each channel if left out.", show_default=False)
]
FileOpt = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]


def train(  # noqa: PLR0913  # one option each
    site: SiteArg,
    *,
    prompts: PromptsOpt = None,
    features: WidthOpt = None,
    k: Annotated[int, typer.Option("--k", help="How many are on in one place.")] = 16,
    updates: Annotated[int, typer.Option(help="Of the training.")] = 4000,
    output: FileOpt = Path("dictionary.safetensors"),
    run: Runs = Runs(seeds=256, steps=20),
    to: Output = Output(),
) -> None:
    """Train a sparse dictionary on what passes through a site; say its loss, and what it explains.

    Example:  denoscope features train unet/up.1.attn.1/resid.post -m emoji-people

    Example:  denoscope features train unet/up.1.attn.1/resid.post --prompts prompts.txt -o up.safetensors

    Activations and checkpoints lie beside the file, in a folder that ends in .store; a training that was
    stopped goes on where it was, with the same command. The folder may be deleted afterwards.

    Then:  denoscope features browse dictionary.safetensors -m emoji-people
    """
    from ...investigation.case import seeds_of
    from ...probes.dictionary import Learning, train_dictionary

    check_new(output)
    model, seeds = open_model(run, to), seeds_of(run.chosen)
    texts = prompts_for(model, prompts, len(seeds))
    store = output.with_suffix(".store")
    settings: Any = {"steps": run.steps, "guidance": run.guidance, "features": features, "k": k}
    try:
        with to.bars() as show:
            made = train_dictionary(
                model, site, texts, seeds=seeds, store=store, learning=Learning(updates=updates),
                progress=show, **settings,
            )  # fmt: skip
    except KeyboardInterrupt as stopped:
        stopped.add_note("The same command goes on where it stopped.")
        raise
    made.save(output)
    _curve(made, output, store, to)


def _curve(made: Dictionary, output: Path, store: Path, to: Output) -> None:
    """Say how the training went."""
    frame = made.to_frame()
    cells = [
        (f"{r.update:.0f}", *(f"{x:.3f}" for x in (r.loss, r.explained, r.explained_by_channel)),
         f"{r.l0:.1f}", f"{r.dead:.1%}")
        for r in frame.itertuples()
    ]  # fmt: skip
    held = made.record["held_out"]
    ends = [f"{held[n]:.3f}" for n in frame.columns[1:4]]
    last = ("end", *ends, f"{held['l0']:.1f}", f"{held['dead']:.1%}")
    to.result(
        {"dictionary": str(output), "store": str(store), "held_out": held, "curve": rows(frame)},
        table(["update", "loss", "explained", "by channel", "on in a row", "dead"], [*cells, last]),
        f"[dim]on samples held out; {escape(repr(made))}[/]",
        f"\n[bold green]done[/]  {escape(str(output))}",
        written=[output],
    )


def browse(  # noqa: PLR0913  # one option each
    dictionary: Annotated[
        Path, typer.Argument(help="A file of  denoscope features train.", show_default=False)
    ],
    *,
    prompts: PromptsOpt = None,
    features: Annotated[
        str, typer.Option(help="How many, those that differ most between samples; or which: 7,12,40.")
    ] = "24",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("features"),
    run: JudgedRuns = JudgedRuns(seeds=64, steps=20),
    to: Output = Output(),
) -> None:
    """Show features one by one: where they are on, what they tell, what editing them does; a page to search.

    Example:  denoscope features browse dictionary.safetensors -m emoji-people

    Example:  denoscope features browse up.safetensors --prompts prompts.txt --features 7,12

    Writes features.html (open it in any browser) and results.zarr (denoscope.atlas.Atlas.load). Labels are
    asked of the judge, where one ships with the model or is named.
    """
    from ...atlas.browsing import browse_features
    from ...bias.labels import judge_of
    from ...investigation.case import seeds_of
    from ...models.zoo import ZOO
    from ...probes.dictionary import Dictionary

    check_new(output)
    known, wanted = Dictionary.load(dictionary), _features(features)
    model, seeds = open_model(run, to), seeds_of(run.chosen)
    texts = prompts_for(model, prompts, len(seeds))
    judge = judge_of(model, run.judge, run.device) if run.judge or model.name in ZOO else None
    settings: Any = {"steps": run.steps, "guidance": run.guidance, "judge": judge, "features": wanted}
    with to.bars() as show:
        made = browse_features(model, known, texts, seeds=seeds, progress=show, **settings)
        output.mkdir(parents=True, exist_ok=True)
        made.save(output / "results.zarr")
        page = made.page(output / "features.html", command=command_line())
    frame = made.to_frame()
    cells = [
        (r.feature, f"{r.density:.1%}", *(f"{x:.3g}" for x in (r.off, r.x2, r.x5)), r.best)
        for r in frame.itertuples()
    ]
    to.result(
        {
            "page": str(page),
            "results": str(output / "results.zarr"),
            "features": rows(frame),
            "tells": rows(made.tells()),
        },
        table(["feature", "on", "off moves", "x2 moves", "x5 moves", "tells (AUC)"], cells),
        f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser",
        written=[page],
    )


def _features(said: str) -> int | list[int]:
    """A number of features, or several features by their numbers."""
    from ...models.errors import UsageError

    try:
        found = [int(one) for one in said.split(",")]
    except ValueError:
        raise UsageError(f"--features is {said!r}; write how many, 24, or which: 7,12,40") from None
    return found if len(found) > 1 else found[0]


def prompts_for(model: Model, file: Path | None, n: int) -> list[str] | None:
    """The prompt of each of n samples, in turns; None for a model that reads no text.

    Raises:
        ValueError: for a model that reads text and no file, and a file without prompts.
    """
    from ...models.errors import UsageError

    if file is None:
        if model.conditional:
            raise UsageError(f"{model.name} reads text; name a file of prompts, one a line, by --prompts")
        return None
    texts = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if not texts:
        raise UsageError(f"{file} holds no prompts; write one a line")
    return [texts[i % len(texts)] for i in range(n)]
