"""What passes through the cuts of one model, and what another says when it is put in there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.run.levels import Step
from ...models.run.noise import generators
from ...models.run.prediction import scales
from ...models.site import Site
from ...probes.intervene import Intervention, intervening

Source = Model | Callable[[Model], AbstractContextManager[Any]]
"""Another model of the same architecture, or a change of this one for the length of a with block."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Half-noised pictures at one step.

    Args:
        step: at which.
        x: noised latents [row, ...].
        wanted: what the network should say of them [row, ...].
        texts: the prompt of each row.
    """

    step: Step
    x: Tensor
    wanted: Tensor
    texts: Sequence[str]


def middles(steps: Sequence[Step], bins: int) -> list[Step]:
    """The steps in the middle of so many equal parts of a run."""
    return [steps[(2 * i + 1) * len(steps) // (2 * bins)] for i in range(bins)]


def noised(model: Model, latents: Tensor, step: Step, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return latents as they would be at a step, and the noise in them, drawn by a seed for each row."""
    drawn = [torch.randn(latents[0].shape, generator=g) for g in generators(seeds)]
    noise = torch.stack(drawn).to(latents)
    a, s = scales(model.scheduler, step, latents)
    return a * latents + s * noise, noise


@contextmanager
def being(model: Model, source: Source) -> Iterator[Model]:
    """Give the model that a source is, for as long as the block lasts."""
    if isinstance(source, Model):
        yield source
        return
    with source(model):
        yield model


@torch.no_grad()
def through_text(
    model: Model, texts: Sequence[str], sites: Sequence[Site]
) -> tuple[dict[str, Prompt], dict[Site, Tensor]]:
    """Encode texts, and return what passed through sites, [text, token, channel]."""
    once = list(dict.fromkeys(texts))
    with _kept(model, sites) as seen:
        prompts = model.encode(once)
    return dict(zip(once, prompts, strict=True)), seen


@torch.no_grad()
def through_denoiser(
    model: Model, moment: Moment, prompts: Mapping[str, Prompt], sites: Sequence[Site]
) -> tuple[Tensor, dict[Site, Tensor]]:
    """Return what the denoiser says of a moment, and what passed through sites, [row, ...]."""
    with _kept(model, sites) as seen:
        said = denoised(model, moment, prompts)
    return said, seen


@torch.no_grad()
def patched_text(
    model: Model, texts: Sequence[str], sites: Sequence[Site], states: Mapping[Site, Tensor]
) -> dict[str, Prompt]:
    """Encode texts with other states put in at sites."""
    once = list(dict.fromkeys(texts))
    with intervening(model, *_puts(sites, states)):
        return dict(zip(once, model.encode(once), strict=True))


@torch.no_grad()
def patched_denoiser(
    model: Model,
    moment: Moment,
    prompts: Mapping[str, Prompt],
    sites: Sequence[Site],
    states: Mapping[Site, Tensor],
) -> Tensor:
    """Return what the denoiser says of a moment with other states put in at sites."""
    with intervening(model, *_puts(sites, states)):
        return denoised(model, moment, prompts)


@torch.no_grad()
def denoised(model: Model, moment: Moment, prompts: Mapping[str, Prompt]) -> Tensor:
    """Return what the denoiser says of a moment, unguided."""
    return model.denoise(moment.x, moment.step, [prompts[text] for text in moment.texts])


def check_alike(model: Model, other: Source, sites: Sequence[Site]) -> None:
    """Raise UsageError for another model that does not have the same sites, latents and text."""
    if not isinstance(other, Model):
        return
    lost = [str(site) for site in sites if site not in other.places()]
    if lost or tuple(other.latent_shape) != tuple(model.latent_shape):
        what = f"no site {lost[0]}" if lost else f"latents of shape {tuple(other.latent_shape)}"
        raise UsageError(
            f"{other.name} has {what}, so what passes through {model.name} cannot be put in there; give a "
            "model of the same architecture"
        )


@contextmanager
def _kept(model: Model, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Intervention:
        def note(x: Tensor, _: Any) -> None:
            seen[site] = x.detach().clone()

        return Intervention(site, note)

    with intervening(model, *(keep(site) for site in sites)):
        yield seen


def _puts(sites: Sequence[Site], states: Mapping[Site, Tensor]) -> list[Intervention]:
    def put(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: states[site].to(x))

    return [put(site) for site in sites]
