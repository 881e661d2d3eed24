"""``denoscope plan``: what long work takes, before it is begun."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..opening import use_threads
from ..options import AboutOpt, JudgedRuns, PromptArg
from ..output import Output, duration, table


def locate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    inside: Annotated[
        str | None,
        typer.Option(
            "--in",
            help="text_encoder, unet, transformer; the text encoder, if there is one, if left out.",
            show_default=False,
        ),
    ] = None,
    pace: Annotated[
        float | None,
        typer.Option(help="Denoiser rows a second; measured here if left out.", show_default=False),
    ] = None,
    run: JudgedRuns = JudgedRuns(seeds=2),
    to: Output = Output(),
) -> None:
    """Tell what denoscope locate takes with the same options: rows, memory, time.

    Example:  denoscope plan locate "a noto emoji of a dog" --about dog --in unet --seeds 8
    """
    from ...investigation.case import Case
    from ...investigation.single import plan

    use_threads(run.model)
    with to.status("counting"):
        found, measured = plan(Case(prompt, about, "", **run.case), inside, pace)
    seconds = found.seconds(measured)
    cells = {
        "denoiser rows": f"{found.rows:,}" if found.exact else f"at most {found.rows:,}",
        "as published": f"{found.reference_rows:,}",
        "runs": f"{found.runs:,}",
        "samples in a batch": str(found.samples),
        "activations kept": f"{found.kept / 1e6:.1f} MB",
        "rows a second": f"{measured:.3g}",
        "time": duration(seconds),
    }
    told = {**asdict(found), "rows_per_second": measured, "seconds": seconds}
    to.result(told, table(("what", found.what), cells.items()))
