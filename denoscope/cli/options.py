"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
