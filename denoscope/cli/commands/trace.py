"""``denoscope trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..opening import check_new, open_model, trace_prompt
from ..options import GuidanceOpt, ModelOpt, PromptArg, SeedsOpt, StepsOpt
from ..output import out, progress_bars


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
    check_new(output)
    opened = open_model(model)
    with progress_bars() as show:
        run = trace_prompt(opened, prompt, seeds, show, steps=steps, guidance=guidance, sites=sites)
        output.parent.mkdir(parents=True, exist_ok=True)
        run.save(output)
    out.print(
        f"{len(run)} sites x {len(run.kept_steps)} steps in [bold]{escape(str(output))}[/]", soft_wrap=True
    )
