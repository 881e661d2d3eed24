"""``denoscope evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...models.progress import called
from ..opening import check_new, use_threads
from ..options import AboutOpt, ChangeOpt, GuidanceOpt, ModelOpt, PromptArg, SeedsOpt, StepsOpt
from ..output import print_frame, progress_bars


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
    from ...editing.edit import Edit
    from ...investigation.case import Case
    from ...investigation.folder import write_text
    from ...investigation.single import evaluate as run

    check_new(output)
    made = Edit.load(file)
    use_threads(model)
    with progress_bars() as show:
        case = Case(prompt, about, change_to, model, seeds, steps, guidance)
        found = run(case, made, called(show, "before and after"))
    print_frame(found.summary())
    if output is not None:
        write_text(output, found.to_frame().to_csv(index=False))
