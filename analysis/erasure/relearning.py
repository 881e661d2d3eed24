"""Relearning: some steps of tuning on pictures of the concept, or on others, bring a shallow edit back.

The components whose weights the edit changed are tuned whole (the denoiser, if it changed none), by Adam on
the plain denoising loss, and put back to the bit. Controls: the same tuning of the clean model, with the
prompt of what is meant instead; and of the edited one on unrelated pictures, which should bring nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ...models.undo import Undo
from .fitting import denoising_loss, drawn, looked_at
from .world import WORK, Trial, World

ON_TARGET = "tuned on its pictures"
UNRELATED = "tuned on other pictures"


def relearnt(world: World) -> Iterator[Trial]:
    """Tune, and paint after each mark of steps."""
    text, other = world.text(world.about), world.text(world.instead)
    own = [(text, world.targets)]
    plans = [("edited", ON_TARGET, own, text)]
    if world.unrelated:
        plans.append(("edited", UNRELATED, unrelated(world), text))
    plans.append(("clean", "tuned to call it by the other name", [(other, world.targets)], other))
    parts = tuned_parts(world)
    for who, attack, data, asked in plans:
        with world.acting(who):
            found = tune(world, parts, data, asked)
        for steps, images in found.items():
            yield Trial("relearn", attack, images, who, steps, steps * world.budget.batch)


def tuned_parts(world: World) -> list[str]:
    """Components that are tuned: those that the edit changed, or the denoiser."""
    return world.parts or [world.model.input_site.component]


def unrelated(world: World) -> list[tuple[str, Tensor]]:
    """Prompts of other things, with pictures of them by the clean model."""
    n = max(1, world.budget.pictures // len(world.unrelated))
    seeds = [max(world.draws) + 2 * len(world.draws) + 977 + i for i in range(n)]
    found = []
    for text in world.unrelated:
        start = world.model.start(seeds, world.steps)
        found.append((text, world.paint(world.read(text), start)))
    return found


def tune(
    world: World, parts: Sequence[str], data: Sequence[tuple[str, Tensor]], asked: str
) -> dict[int, Tensor]:
    """Tune components on pictures under their prompts; what a prompt is painted as after each mark of steps.

    The model is taken as it is now, and left so to the bit.
    """
    model, budget = world.model, world.budget
    latents = [(text, world.latents(images)) for text, images in data]
    levels = model.levels

    def loss(generator: torch.Generator) -> Tensor:
        text, own = latents[int(torch.randint(len(latents), (1,), generator=generator))]
        world.meter(WORK * budget.batch)
        prompt = model.encode([text])[0]
        return denoising_loss(model, drawn(own, budget.batch, generator), prompt, levels, generator)

    def look() -> Tensor:
        return world.paint(world.read(asked))

    with trainable([model.components[part] for part in parts]) as what:
        return looked_at(what, loss, look, budget.tuning, rate=budget.tuning_rate)


@contextmanager
def trainable(modules: Sequence[nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Give the parameters of modules to be trained; afterwards they are what they were, to the bit."""
    parameters = {f"{i}.{n}": p for i, m in enumerate(modules) for n, p in m.named_parameters()}
    with Undo() as undo:
        for p in parameters.values():
            undo.add(partial(_put_back, p, p.detach().clone(), p.requires_grad))
            p.requires_grad_(True)
        yield dict(parameters)


def count(world: World) -> int:
    """Rows that it takes."""
    budget, n = world.budget, len(world.unrelated)
    others = n * max(1, budget.pictures // max(n, 1))
    painting = world.painting * others // len(world.draws)
    tuning = WORK * budget.tuning[-1] * budget.batch + len(budget.tuning) * world.painting
    return (2 + bool(n)) * tuning + painting


def _put_back(parameter: Tensor, values: Tensor, trained: bool) -> None:
    parameter.requires_grad_(trained)
    with torch.no_grad():
        parameter.copy_(values)
        parameter.grad = None
