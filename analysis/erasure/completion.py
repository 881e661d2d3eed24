"""A half-made picture: the clean model paints the first k steps, the edited one goes on (arXiv 2505.17013).

Every k goes on from one clean run, so a switch takes no second one. k = 0 is the edited run and k = T the
clean one. The control is a clean model that goes on with the prompt of what is meant instead: a model that
never lost the concept, and is asked for something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ...models.base import SamplerState
from .world import Trial, World

SWITCHES = 8
"""At so many places of a run, evenly spread, the models are switched."""


def completions(world: World) -> Iterator[Trial]:
    """Go on from clean states with the edited model, and with the clean one asked for something else."""
    switches, last = switched(world.length), world.length
    moments = _moments(world, switches)
    plain, after = world.plain, world.after
    for who, reading in (("edited", after), ("clean", world.meant)):
        ends = {0: plain["edited"], last: plain["clean"]}
        if who == "clean":
            ends[0] = world.paint(reading)
        for k in (0, *switches, last):
            images = ends.get(k)
            if images is None:
                with world.acting(who):
                    images = world.paint(reading, moments[k])
            attack = "clean, then edited" if who == "edited" else "clean, then asked for the other"
            yield Trial("completion", attack, images, who, k, k * world.branches * len(world.draws))


def switched(length: int) -> list[int]:
    """Return after how many steps of a run the models are switched, ends aside.

    >>> switched(12), switched(2)
    ([2, 3, 4, 6, 8, 9, 10], [1])
    """
    return sorted({round(length * i / SWITCHES) for i in range(1, SWITCHES)} - {0, length})


def count(world: World) -> int:
    """Rows that it takes."""
    left = sum(world.length - k for k in switched(world.length))
    return 2 * left * world.branches * len(world.draws) + 2 * world.painting


@torch.no_grad()
def _moments(world: World, switches: Sequence[int]) -> dict[int, SamplerState]:
    """States of the clean run after some of its steps, of all samples."""
    found: dict[int, list[SamplerState]] = {k: [] for k in switches}
    for run in world.runs(world.clean):
        for state in run:
            if state.step.index + 1 in found:
                found[state.step.index + 1].append(state.sampler_state())
    return {k: SamplerState.join(parts) for k, parts in found.items()}
