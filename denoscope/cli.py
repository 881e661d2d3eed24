"""The ``denoscope`` command.

Heavy imports happen inside the commands, so that ``--help`` is quick. Faults are told in one line, without a
traceback: exit code 2, or 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from typer.core import TyperGroup

from .models.store.disk import check_writable

if TYPE_CHECKING:
    import pandas as pd

    from .investigation.case import Case
    from .models.base import Model
    from .probes.trace import Trace

Show = Callable[[str, int, int], None]
"""Called with (what is done, how far, of how much)."""

out = Console()
err = Console(stderr=True)

FIXES = {
    errno.ENOSPC: "the disk is full; free some space, or name another folder with --output",
    errno.EROFS: "the disk is read-only; name another folder with --output",
    errno.EACCES: "writing is not allowed there; name another folder with --output",
    errno.EEXIST: "a file stands where a folder is needed; name another folder with --output",
    errno.ENOTDIR: "a file stands where a folder is needed; name another folder with --output",
}


class Plain(TyperGroup):
    """Turns the faults a user can mend into one line; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            err.print(
                "[bold]stopped[/]; nothing half-written is left. The same command goes on where it stopped."
            )
            raise typer.Exit(130) from None
        except (IndexError, KeyError):
            raise  # of a lookup in our own code: a bug
        except (ValueError, TypeError, LookupError, OSError) as error:
            err.print(f"[bold red]error:[/] {escape(_say(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(2) from None


def _say(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        fix = FIXES.get(error.errno)
        return f"{where}{fix or error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    cls=Plain,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Look inside a diffusion model while it samples, find what causes what, change exactly that, and "
        "check that nothing else moved.\n\n"
        "Start here:  [bold]denoscope demo[/]\n\n"
        "Then try your own words:  [bold]denoscope investigate "
        '"a twemoji emoji of a red apple" --about apple --change-to banana[/]'
    ),
)

PromptArg = Annotated[str, typer.Argument(help="What to generate, in quotes.", show_default=False)]
ModelOpt = Annotated[
    str,
    typer.Option("--model", "-m", help="A name from the zoo, a folder in diffusers' layout, or a hub id."),
]
StepsOpt = Annotated[int, typer.Option(help="Sampling steps.")]
SeedsOpt = Annotated[int, typer.Option(help="How many seeds: 0, 1, ...")]
GuidanceOpt = Annotated[float | None, typer.Option(help="Guidance scale; the model's own if left out.")]
AboutOpt = Annotated[
    str, typer.Option("--about", help="The word of the prompt to ask about.", show_default=False)
]
ChangeOpt = Annotated[
    str, typer.Option("--change-to", help="What it shall mean instead.", show_default=False)
]


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("denoscope-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and steps: under a minute.")] = False,
) -> None:
    """Do the whole loop on the embedded model: a firefighter becomes a cook. Some three minutes."""
    from .investigation.case import Case

    case = Case("a noto emoji of a woman firefighter", "firefighter", "cook")
    _investigate(case.quicker() if quick else case, output, fresh=True)


@app.command()
def investigate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    change_to: ChangeOpt,
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("investigation"),
    steps: StepsOpt = 10,
    seeds: SeedsOpt = 4,
    guidance: GuidanceOpt = None,
) -> None:
    """Look, find the cause, change it, check it; then write a page about it.

    Example:  denoscope investigate "a flat emoji of a dog" --about dog --change-to cat --output dog-to-cat

    Writes report.html (open it in any browser), results.zarr (all numbers), edit.safetensors (the edit) and
    run.json (seeds, versions, hashes). A run that was stopped goes on where it was, with the same command.
    """
    from .investigation.case import Case

    _investigate(Case(prompt, about, change_to, model, seeds, steps, guidance), output)


def _investigate(case: Case, output: Path, fresh: bool = False) -> None:
    from .investigation.investigate import investigate as run

    _use_threads(case.model)
    with _progress() as show:
        page = run(case, output, command=_command(), fresh=fresh, progress=show)
    out.print(f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser", soft_wrap=True)


@app.command()
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
    from .report.images import save_pictures

    check_writable(output)
    opened = _open(model)
    with _progress() as show, _edited(opened, edit):
        run = _trace(opened, prompt, seeds, show, steps=steps, guidance=guidance)
        files = save_pictures(run.images, output, [f"seed-{s}" for s in run.seeds])
    out.print(f"{len(files)} pictures in [bold]{escape(str(output))}[/]", soft_wrap=True)


@app.command()
def locate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    inside: Annotated[str, typer.Option("--in", help="text_encoder, unet, transformer.")] = "text_encoder",
    model: ModelOpt = "emoji",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A zarr store for all scores.")
    ] = None,
    steps: StepsOpt = 10,
    seeds: SeedsOpt = 2,
    guidance: GuidanceOpt = None,
) -> None:
    """Find which states carry a word of the prompt into the picture: causal mediation.

    Example:  denoscope locate "a noto emoji of a woman firefighter" --about firefighter
    """
    from .investigation.case import Case
    from .investigation.stages import locate as find

    _check_new(output)
    _use_threads(model)
    with _progress() as show:
        case = Case(prompt, about, "", model, seeds, steps, guidance)
        found = find(case, inside, lambda n, of: show("restoring states", n, of))
        if output is not None:
            found.save(output)
    total = found.total()
    out.print(f"[bold]{escape(about)}[/] changes {found.data.attrs['metric']} by {float(total['mean']):.3f}")
    _print_frame(found.normalised.to_frame().head(12))


@app.command()
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
    from .editing.methods.quickfix import quickfix

    made = quickfix(_open(model), {about: change_to}, site=site)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    out.print(f"{escape(repr(made))}\nin [bold]{escape(str(output))}[/]", soft_wrap=True)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="An edit.", show_default=False)],
    prompt: PromptArg,
    *,
    about: AboutOpt,
    change_to: ChangeOpt,
    model: ModelOpt = "emoji",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A CSV file for each picture's numbers.")
    ] = None,
    steps: StepsOpt = 10,
    seeds: SeedsOpt = 4,
    guidance: GuidanceOpt = None,
) -> None:
    """Say whether an edit works, and what else it moves: before and after, under the same seeds.

    Example:  denoscope evaluate edit.safetensors "a noto emoji of a woman firefighter"
    --about firefighter --change-to cook
    """
    from .editing.edit import Edit
    from .investigation.case import Case
    from .investigation.folder import write_text
    from .investigation.stages import evaluate as run

    _check_new(output)
    made = Edit.load(file)
    _use_threads(model)
    with _progress() as show:
        case = Case(prompt, about, change_to, model, seeds, steps, guidance)
        found = run(case, made, lambda n, of: show("before and after", n, of))
    _print_frame(found.summary())
    if output is not None:
        write_text(output, found.to_frame().to_csv(index=False))


@app.command()
def sites(
    pattern: Annotated[str, typer.Argument(help="A glob, like 'unet/mid.*/cross_attn.*'.")] = "**",
    model: ModelOpt = "emoji",
    full_size: Annotated[str | None, typer.Option(help="A published configuration, like sdxl.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the blocks into this SVG file.")] = None,
) -> None:
    """List the places of a model that can be looked at and changed.

    Example:  denoscope sites "text_encoder/*/self_attn.out"

    Example:  denoscope sites "unet/mid.*/*" --full-size sdxl --picture sdxl.svg

    With --full-size no weights are needed, and --model does not count.
    """
    from .models.store.disk import write_bytes
    from .models.synthetic import sizes as shapes
    from .report.diagram import diagram

    opened = _open(model) if full_size is None else shapes.full_size(full_size)
    _print_frame(opened.sites(pattern).to_frame().reset_index()[["site", "kind", "shape"]])
    if picture is not None:
        write_bytes(picture, diagram(opened).encode())


@app.command()
def trace(
    prompt: PromptArg,
    *,
    sites: Annotated[str, typer.Option(help="Which sites to keep, as a glob.")] = "unet/**/cross_attn.out",
    model: ModelOpt = "emoji",
    output: Annotated[Path, typer.Option("--output", "-o", help="The zarr store to write.")] = Path(
        "trace.zarr"
    ),
    steps: StepsOpt = 20,
    seeds: SeedsOpt = 1,
    guidance: GuidanceOpt = None,
) -> None:
    """Keep the activations at some sites while pictures are made, in a zarr store.

    Example:  denoscope trace "a noto emoji of a dog" --sites "unet/mid.*/*" --output dog.zarr

    Read it with  denoscope.Trace.load("dog.zarr").
    """
    _check_new(output)
    opened = _open(model)
    with _progress() as show:
        run = _trace(opened, prompt, seeds, show, steps=steps, guidance=guidance, sites=sites)
        output.parent.mkdir(parents=True, exist_ok=True)
        run.save(output)
    out.print(
        f"{len(run)} sites x {len(run.kept_steps)} steps in [bold]{escape(str(output))}[/]", soft_wrap=True
    )


def _open(name: str) -> Model:
    from .models.load import load

    _use_threads(name)
    with err.status(f"opening {escape(name)}"):
        return load(name)


def _use_threads(model: str) -> None:
    """Give embedded models one thread: with two, other load made runs 5 to 30 times slower."""
    import torch

    from .models.zoo import ZOO

    if model in ZOO and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _trace(model: Model, prompt: str, seeds: int, show: Show, *, steps: int, **more: Any) -> Trace:
    from .investigation.case import check_seeds
    from .probes.trace import trace as run

    check_seeds(seeds)
    return run(
        model,
        [prompt] * seeds,
        seeds=list(range(seeds)),
        steps=steps,
        progress=lambda state: show("sampling", state.step.index + 1, len(model.steps(steps))),
        **more,
    )


def _check_new(output: Path | None) -> None:
    if output is None:
        return
    if output.exists():
        raise FileExistsError(f"{output} exists; name a new one with --output, or delete it")
    check_writable(output)


def _print_frame(frame: pd.DataFrame) -> None:
    table = Table(*map(str, frame.columns), box=None)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else escape(str(v)) for v in row))
    (out if out.is_terminal else Console(width=200)).print(table)


@contextmanager
def _edited(model: Model, file: Path | None) -> Iterator[None]:
    from .editing.edit import Edit

    if file is None:
        yield
    else:
        with Edit.load(file).applied(model):
            yield


@contextmanager
def _progress() -> Iterator[Show]:
    """A bar for each stage, on stderr: ``show(stage, done, total)``."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<40}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(escape(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _command() -> str:
    """The command line as it was typed, to be shown on the page."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
