"""``denoscope compare``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, use_threads
from ..options import Seeds
from ..output import Output, command_line, rows, table

if TYPE_CHECKING:
    from ...models.base import Model

FirstArg = Annotated[str, typer.Argument(help="A model: a name from the zoo, a folder, a hub id.")]
SecondArg = Annotated[
    str, typer.Argument(help="Another of the same architecture; or a file of an edit, or of a LoRA.")
]


def compare(  # noqa: PLR0913  # one option each
    first: FirstArg,
    second: SecondArg,
    *,
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What both paint; once for each text.")],
    measure: Annotated[
        str | None,
        typer.Option(
            help="What differs: an attribute of the first model's judge, 'gender=woman', or a text; if left "
            "out how far the latents are apart.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 10,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of both.")] = None,
    device: Annotated[str, typer.Option(help="Where both compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Number format of the weights.")] = "float32",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("compared"),
    seeds: Seeds = Seeds(seeds=2),
    to: Output = Output(),
) -> None:
    """Put two models side by side: base and LoRA, edited, fine-tuned or distilled; write a page.

    Example:  denoscope compare emoji edit.safetensors --prompt "a noto emoji of a cook"

    Writes compared.html (open it in any browser) and results.zarr (denoscope.comparison.ComparedModels.load).
    """
    from ...comparison.comparing import compare_models
    from ...investigation.case import seeds_of
    from ...models.load import load
    from ...models.opening.placing import placing
    from ...steering.measures import measures_of

    check_new(output)
    use_threads(first)
    place = placing(device, dtype)
    with to.status(f"opening {first}"):
        model = load(first, **place)
    metric = next(iter(measures_of([measure], model, None, device).values())) if measure else None
    how: dict[str, Any] = {"seeds": seeds_of(seeds.chosen), "steps": steps, "guidance": guidance}
    with to.status(f"opening {second}"), other_of(first, second, place) as other, to.bars() as show:
        found = compare_models(model, other, prompt, metric=metric, progress=show, **how)
    output.mkdir(parents=True, exist_ok=True)
    found.save(output / "results.zarr")
    page = found.page(output / "compared.html", command=command_line())
    frame = found.to_frame().reset_index()
    cells = [
        (r.site, "" if r.effect != r.effect else f"{r.effect:.0%}", f"{r.cosine:.3f}", f"{r.relative:.3f}")
        for r in frame.head(12).itertuples()
    ]
    to.result(
        {"page": str(page), "sites": rows(frame), "weights": rows(found.weights())},
        table(["site", "share", "cosine", "relative difference"], cells),
        f"\n[bold green]done[/]  open [bold]{escape(str(page))}[/] in a browser",
        written=[page],
    )


@contextmanager
def other_of(first: str, second: str, place: dict[str, Any]) -> Iterator[Model | Any]:
    """The second model: another one, or the first with the edit or the LoRA of a file.

    Raises:
        ValueError: for a file that is neither.
        LookupError: for a name that is no model.
    """
    from ...editing.edit import Edit
    from ...models.errors import UsageError
    from ...models.load import load

    path = Path(second)
    if path.suffix != ".safetensors" or not path.is_file():
        yield load(second, **place)
        return
    try:
        yield Edit.load(path).applied
        return
    except UsageError as error:
        no_edit = " ".join(str(error).split())
    model = load(first, **place)
    try:
        model.pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    except Exception as error:
        raise UsageError(f"{path} is neither an edit ({no_edit}) nor a LoRA of {first} ({error})") from error
    yield model
