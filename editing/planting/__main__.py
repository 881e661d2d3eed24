"""Plant anew: ``python -m denoscope.editing.planting`` writes what ``planted`` reads, for these weights.

The same seed draws the same places on the same weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from ...models.judges.embedded import load_judge
from ...models.load import load
from .files import HOME, PlantedPlaces, write
from .making import DRAWS, drawn, gathered, survey
from .places import Planted

log = logging.getLogger(__name__)


def main(
    *,
    model: Annotated[str, typer.Option(help="name of an embedded model with a UNet")] = "emoji",
    kind: Annotated[list[str] | None, typer.Option(help="layers, fact, direction; all by default")] = None,
    number: Annotated[int, typer.Option(help="places of each kind")] = 12,
    seed: Annotated[int, typer.Option(help="of the drawing")] = 0,
    out: Annotated[Path, typer.Option(help="folder for the files; by default where they ship")] = HOME,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """Draw places, plant them, try them out, and write those that act."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    opened, judge = load(model), load_judge(model)
    for part in opened.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    ground = survey(opened, judge)
    log.info("%d words are painted well: %s", len(ground.words), ", ".join(ground.words))
    for name in kind or list(DRAWS):
        path = out / f"{model}-{name}.safetensors"

        def keep(found: Sequence[Planted], redrawn: int, name: str = name, path: Path = path) -> None:
            log.info("%s: %d act, %d drawn again", name, len(found), redrawn)
            if found:  # what was stopped leaves what it had
                write(path, name, PlantedPlaces(tuple(found), redrawn, seed))

        gathered(drawn(ground, name, seed), number, keep)
        log.info("%s takes %d bytes", path.name, path.stat().st_size)


if __name__ == "__main__":
    typer.run(main)
