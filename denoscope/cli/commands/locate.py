"""``denoscope locate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ...models.progress import called
from ..opening import check_new, use_threads
from ..options import AboutOpt, GuidanceOpt, ModelOpt, PromptArg, SeedsOpt, StepsOpt
from ..output import out, print_frame, progress_bars


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
    from ...investigation.case import Case
    from ...investigation.single import locate as find

    check_new(output)
    use_threads(model)
    with progress_bars() as show:
        case = Case(prompt, about, "", model, seeds, steps, guidance)
        found = find(case, inside, called(show, "restoring states"))
        if output is not None:
            found.save(output)
    total = found.total()
    out.print(f"[bold]{escape(about)}[/] changes {found.data.attrs['metric']} by {float(total['mean']):.3f}")
    print_frame(found.normalised.to_frame().head(12))
