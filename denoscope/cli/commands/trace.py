"""``denoscope trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..opening import check_new, open_model, trace_prompt
from ..options import PromptArg, Runs
from ..output import Output


def trace(
    prompt: PromptArg,
    *,
    sites: Annotated[str, typer.Option(help="Which sites to keep, as a glob.")] = "unet/**/cross_attn.out",
    output: Annotated[Path, typer.Option("--output", "-o", help="The zarr store to write.")] = Path(
        "trace.zarr"
    ),
    run: Runs = Runs(steps=20, seeds=1),
    to: Output = Output(),
) -> None:
    """Keep the activations at some sites while pictures are made, in a zarr store.

    Example:  denoscope trace "a noto emoji of a dog" --sites "unet/mid.*/*" --output dog.zarr

    Read it with  denoscope.Trace.load("dog.zarr").
    """
    check_new(output)
    model = open_model(run, to)
    with to.bars() as show:
        kept = trace_prompt(model, prompt, run, show, sites=sites)
        output.parent.mkdir(parents=True, exist_ok=True)
        kept.save(output)
    said = f"{len(kept)} sites x {len(kept.kept_steps)} steps in [bold]{escape(str(output))}[/]"
    found = {"trace": str(output), "sites": list(map(str, kept)), "steps": list(kept.kept_steps)}
    to.result({**found, "seeds": list(kept.seeds)}, said, written=[output])
