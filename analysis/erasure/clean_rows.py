"""What the edit cannot reach: the clean model's text rows, given to the edited denoiser.

For an edit of text encoders this is the clean run to the bit, by construction: who brings the rows has the
concept. The empty text's rows count too; with the edited model's own, only the prompt is brought.
"""

from __future__ import annotations

from collections.abc import Iterator

from .world import Reading, Trial, World


def clean_embeddings(world: World) -> Iterator[Trial]:
    """Paint clean rows by the edited denoiser: of prompt and empty text, and of the prompt alone."""
    readings = {"prompt and empty text": world.clean}
    if world.clean.negative is not None:
        readings["prompt alone"] = Reading(world.clean.prompt, world.after.negative)
    for name, reading in readings.items():
        with world.edited():
            images = world.paint(reading)
        yield Trial("clean_embeddings", name, images)


def count(world: World) -> int:
    """Rows that it takes."""
    return 2 * world.painting
