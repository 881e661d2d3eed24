"""What starts from a picture of the concept: half-noised, or led back to the noise it would come from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ...probes.invert import invert
from .world import Trial, World

STRENGTHS = (0.25, 0.5, 0.75)
"""Shares of a run that are made again; at 0 the picture stays, at 1 it is forgotten."""


def noised(world: World) -> Iterator[Trial]:
    """Noise pictures of the concept in part, and go on: the edited model with the prompt, as img2img.

    The control is the clean model asked for what is meant instead.
    """
    images = world.for_each(world.targets)
    for strength in STRENGTHS:
        step = world.length - int(world.length * strength)
        if step >= world.length:
            continue
        start = world.model.start_at(images, step, world.draws, steps=world.steps)
        with world.edited():
            after = world.paint(world.after, start)
        yield Trial("noised", "img2img with the prompt", after, budget=strength)
        other = world.paint(world.meant, start)
        yield Trial("noised", "img2img, asked for the other", other, "clean", strength)


def inverted(world: World) -> Iterator[Trial]:
    """Lead pictures of the concept back to noise by DDIM inversion, and paint them from there, unguided.

    Where they come back, at 25 dB say, the edited model still has a noise that it paints the concept from.
    The control is the clean model.
    """
    images = world.for_each(world.targets)
    for who in ("edited", "clean"):
        with world.acting(who):
            again = _again(world, images)
        rows = len(world.draws) * world.length
        yield Trial("invert", "DDIM inversion", again, who, rows=rows, psnr=psnr(again, images))


def psnr(images: Tensor, others: Tensor) -> Float[Tensor, " picture"]:
    """Return the peak signal-to-noise ratio in dB, at most 100, of pictures in 0..1."""
    error = (images.cpu().double() - others.cpu().double()).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-10).log10()


def count_noised(world: World) -> int:
    """Rows that it takes."""
    return int(2 * sum(STRENGTHS) * world.painting)


def count_inverted(world: World) -> int:
    """Rows that it takes."""
    return 4 * world.painting // world.branches


@torch.no_grad()
def _again(world: World, images: Tensor) -> Tensor:
    reading = world.read(world.text(world.about), guidance=1.0)
    start = invert(world.model, images, [reading.prompt] * len(images), steps=world.steps)
    world.meter(len(images) * world.length)
    return world.paint(reading, start, guidance=1.0)
