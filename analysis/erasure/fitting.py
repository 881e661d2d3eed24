"""The loss of attacks that fit something: the plain denoising loss of pictures under a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.fit import fit
from ...models.run.levels import Step
from ...models.run.prediction import scales, wanted

Found = TypeVar("Found")


def denoising_loss(
    model: Model,
    latents: Float[Tensor, "row ..."],
    prompt: Prompt,
    levels: Sequence[Step],
    generator: torch.Generator,
) -> Tensor:
    """Return the mean squared error of what the network says of noised latents; differentiable.

    Each row gets a noise level from its own part of the schedule and fresh noise.

    Args:
        model: an opened model.
        latents: clean ones.
        prompt: what it reads.
        levels: of the schedule.
        generator: of levels and noise.
    """
    n = len(latents)
    spread = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    steps = [levels[min(int(u * len(levels)), len(levels) - 1)] for u in spread]
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    a, s = scales(model.scheduler, steps, latents)
    said = model.denoise(a * latents + s * noise, steps, [prompt] * n)
    loss: Tensor = (said - wanted(model.scheduler, latents, noise, steps)).square().mean()
    return loss


def looked_at(
    what: Mapping[str, Tensor],
    loss: Callable[[torch.Generator], Tensor],
    look: Callable[[], Found],
    marks: Iterable[int],
    *,
    rate: float,
    seed: int = 0,
) -> dict[int, Found]:
    """Fit by Adam, and look at what there is after some of the steps.

    Args:
        what: tensors that are trained in place.
        loss: of one step, with its own randomness.
        look: called after so many steps as each mark says.
        marks: rising.
        rate: learning rate.
        seed: of the randomness.
    """
    at, found = list(marks), dict[int, Found]()

    def step(index: int, generator: torch.Generator) -> Tensor:
        if index in at:
            with torch.no_grad():
                found[index] = look()
        return loss(generator)

    fit(what, step, steps=at[-1], optimizer=partial(torch.optim.Adam, lr=rate), seed=seed)
    with torch.no_grad():
        found[at[-1]] = look()
    return found


def drawn(latents: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n of some latents, with replacement only where there are fewer."""
    if n <= len(latents):
        return latents[torch.randperm(len(latents), generator=generator)[:n]]
    return latents[torch.randint(len(latents), (n,), generator=generator)]
