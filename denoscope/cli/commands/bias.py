"""``denoscope bias``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, open_model
from ..options import JudgedRuns
from ..output import Output, command_line, rows, table

if TYPE_CHECKING:
    from ...bias.result import BiasStudy
    from ...models.base import Model
    from ...probes.dictionary import Dictionary

SubjectArg = Annotated[
    str,
    typer.Argument(
        help="What to generate, in quotes; leave out for a model that reads no text.", show_default=False
    ),
]
ClassesOpt = Annotated[
    str, typer.Option(help="What is counted: an attribute of the judge, and two of its labels.")
]
WordOpt = Annotated[
    str | None,
    typer.Option(
        help="A word of the prompt: features are found with prompts that name a class before it. Needed "
        "where the prompt paints one class alone.",
        show_default=False,
    ),
]
DictionaryOpt = Annotated[
    Path | None,
    typer.Option(
        help="A file of  denoscope features train; if left out the one that ships with the model, or else "
        "a small one that is trained on the prompt, at the last stream of the denoiser that is coarser than "
        "its output.",
        show_default=False,
    ),
]


def bias(
    prompt: SubjectArg = "",
    *,
    classes: ClassesOpt = "gender=woman,man",
    about: WordOpt = None,
    dictionary: DictionaryOpt = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("bias"),
    run: JudgedRuns = JudgedRuns(seeds=64, steps=20),
    to: Output = Output(),
) -> None:
    """Measure a bias, find the features it hangs on, and push them until shares are equal; write a page.

    Example:  denoscope bias -m emoji-people --dictionary dictionary.safetensors

    Example:  denoscope bias "a noto emoji of a judge" --about judge

    Half of the seeds find features and strength, the others count. Writes bias.html (open it in any browser)
    and results.zarr (denoscope.bias.BiasStudy.load).
    """
    from ...bias.labels import classes_of
    from ...bias.studying import naming, study_bias
    from ...investigation.case import seeds_of
    from ...probes.dictionary import Dictionary

    check_new(output)
    known = None if dictionary is None else Dictionary.load(dictionary)
    model = open_model(run, to)
    _check(model, prompt)
    asked, seeds = classes_of(classes, model, run.judge, run.device), seeds_of(run.chosen)
    settings: dict[str, Any] = {"steps": run.steps, "guidance": run.guidance}
    with to.bars() as show:
        settings["progress"] = show
        known = known or _shipped(model)
        if known is None:
            texts = [naming(prompt, about, name) for name in asked.names] if about else [prompt]
            known = _trained(model, texts if prompt else None, seeds, settings)
        made = study_bias(
            model, known, asked.names, prompt, about=about, seeds=seeds, label=asked.label, judge=asked.judge,
            **settings,
        )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        made.save(output / "results.zarr")
        page = made.page(output / "bias.html", command=command_line())
    if dictionary is None:
        known.save(output / "dictionary.safetensors")
    _tell(made, page, output / "results.zarr", to)


def _check(model: Model, prompt: str) -> None:
    """Raise ValueError for a prompt that the model does not read, and for none where it reads one."""
    from ...models.errors import UsageError

    if model.conditional and not prompt:
        raise UsageError(f"{model.name} reads text; write what to generate, in quotes")
    if prompt and not model.conditional:
        raise UsageError(f"{model.name} reads no text; leave out {prompt!r}")


def _tell(made: BiasStudy, page: Path, results: Path, to: Output) -> None:
    """Say what came out."""
    shares, about = made.shares(), {name: made.data.attrs[name] for name in ("towards", "strength")}
    about["reached"] = bool(made.data.attrs["reached"])
    cells = [
        (way, name, f"{mean:.0%}", f"{low:.0%} to {high:.0%}")
        for way, name, mean, low, high in shares.itertuples(index=False)
    ]
    said = f"[dim]strength {about['strength']:.3g} towards {escape(about['towards'])}[/]"
    about["missing"] = dict(made.data.attrs["missing"])
    for way, why in about["missing"].items():
        said += f"\n[yellow]{escape(way)} left out: {escape(why)}[/]"
    if "features" in about["missing"]:
        said += "\n[yellow]No features were found to push.[/]"
    elif not about["reached"]:
        said += "\n[yellow]No strength makes shares equal on the half that chose it; this is the largest.[/]"
    elif not about["strength"]:
        said += "\n[yellow]On the half that chose it shares are equal already, so nothing is pushed.[/]"
    to.result(
        {"page": str(page), "results": str(results), **about, "ways": rows(made.to_frame()),
         "shares": rows(shares), "features": rows(made.features())},
        table(["way", "class", "share", "95% interval"], cells),
        f"{said}\n\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser",
        written=[page],
    )  # fmt: skip


def _shipped(model: Model) -> Dictionary | None:
    """The dictionary that ships for these very weights."""
    from ...models.errors import NotFoundError
    from ...models.store.fingerprint import fingerprint
    from ...probes.dictionary import shipped_dictionary

    try:
        found = shipped_dictionary(model.name)
    except NotFoundError:
        return None
    return found if found.model == fingerprint(model) else None


def _trained(model: Model, texts: list[str] | None, seeds: list[int], settings: dict[str, Any]) -> Dictionary:
    """A small dictionary of the samples in which features are found; texts take turns."""
    from ...probes.dictionary import Learning, train_dictionary

    some = seeds[: len(seeds) // 2]
    prompts = [texts[i % len(texts)] for i in range(len(some))] if texts else None
    how = Learning(updates=1000)
    return train_dictionary(model, _site(model), prompts, seeds=some, learning=how, **settings)


def _site(model: Model) -> str:
    """The last residual stream that is coarser than the output; the last of all where none is."""
    streams = [s for s in model.sites("**/resid.post") if not s.component.startswith("text_encoder")]
    grids = {s: model.layout(s).grid for s in streams}
    finest = max((g for g in grids.values() if g), default=None)
    coarse = [s for s in streams if grids[s] and grids[s] != finest]
    return str((coarse or streams)[-1])
