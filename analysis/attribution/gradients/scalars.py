"""What is attributed: one number for each row of a run, or of one call of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....models.arguments import check_fields
from ....models.base import Model, Prompt
from ....models.errors import UsageError, WrongTypeError
from ....models.run.context import CallContext
from ....models.run.levels import Step
from ....models.site import Site
from ....models.suggest import near
from ....probes.intervene import Intervention, Probe
from ...metrics import Metric, Outcome, check_differentiable

NAMED = ("fit", "shift")
"""How well the prediction fits the picture; how far it is from that for the other text."""


@dataclass(frozen=True)
class Neuron:
    """One channel at a site: its activation, averaged over places, heads' tokens and steps.

    Args:
        site: of the denoiser, with an axis of channels.
        channel: which one.
    """

    site: Site | str
    channel: int

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "site", Site(str(self.site)))
        if self.channel < 0:
            raise UsageError(f"channel is {self.channel}; channels count from 0")

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"channel {self.channel} of {self.site}"


@dataclass(frozen=True, eq=False)
class Moment:
    """One prompt and seed, and what is made of them: a whole run, or one call that looks at a picture.

    Args:
        model: an opened model.
        prompt: what is read.
        against: the other text, encoded.
        seed: of the noise.
        latents: what the network is given first, [1, ...].
        at: the noise level of the one call; None is a whole run.
        clean: latents of the picture, [1, ...], where there is one.
        settings: of the run, or the guidance of the call.
    """

    model: Model
    prompt: Prompt
    against: Prompt
    seed: int
    latents: Tensor
    at: Step | None
    clean: Tensor | None
    settings: dict[str, Any]

    def outcome(self, prompts: Sequence[Prompt], latents: Tensor, probes: Sequence[Probe] = ()) -> Outcome:
        """Return the final latents of runs, or the clean latents that one call predicts."""
        model, n = self.model, len(latents)
        if self.at is not None:
            out = model.denoise(latents, self.at, prompts, interventions=probes, **self.settings)
            made = model.to_x0(latents, out, self.at)
        else:
            seeds = [self.seed] * n
            start = replace(model.start(seeds, self.settings["steps"]), latents=latents)
            how = {k: v for k, v in self.settings.items() if k != "steps"}
            run = model.sample(
                prompts,
                seeds=seeds,
                start=start,
                interventions=probes,
                recompute=torch.is_grad_enabled(),
                **how,
            )
            *_, state = run
            made = state.latents
        clean = None if self.clean is None else self.clean.expand_as(made)
        return Outcome(made, (self.prompt,) * n, model.decode, clean)


Scored = Callable[[Sequence[Prompt], Tensor, Sequence[Probe]], Tensor]


def scored(of: Metric | Neuron | str, moment: Moment) -> Scored:
    """Return the scalar as a function of prompts, latents and what is changed on the way; checked."""

    def score(prompts: Sequence[Prompt], latents: Tensor, probes: Sequence[Probe]) -> Tensor:
        if isinstance(of, Neuron):
            return _activation(of, moment, prompts, latents, probes)
        outcome = moment.outcome(prompts, latents, probes)
        if of == "fit" and outcome.clean is not None:
            return -(outcome.latents - outcome.clean).square().flatten(1).mean(1)
        if of == "shift":
            other = moment.outcome([moment.against] * len(latents), latents)
            return (outcome.latents - other.latents).square().flatten(1).mean(1)
        if isinstance(of, str):
            raise UsageError(f"of={of!r} is of pictures, and there are none")
        found = of(outcome)
        check_differentiable(found, of, len(latents), smooth=torch.is_grad_enabled())
        return found

    return score


def check_scalar(of: Metric | Neuron | str, model: Model, looks_at_pictures: bool) -> str:
    """Return what a scalar is called.

    Raises:
        ValueError: for a name that there is not, a fit without a picture, and a channel that a site lacks.
        LookupError: for a site that the model does not have.
        TypeError: for what is no scalar.
    """
    if isinstance(of, Neuron):
        _channel_axis(of, model)
        return of.name
    if isinstance(of, str):
        if of not in NAMED:
            raise UsageError(f"of is {of!r}; give a metric, a Neuron, or a name: {near(of, NAMED)}")
        if of == "fit" and not looks_at_pictures:
            raise UsageError("of='fit' says how well pictures are predicted; give images and at")
        return of
    if not callable(of):
        raise WrongTypeError(f"of is {of!r}; it is 'fit', 'shift', a metric, or a Neuron")
    return getattr(of, "__name__", repr(of))


def _channel_axis(of: Neuron, model: Model) -> int:
    site = Site(str(of.site))
    if site.component.startswith("text_encoder"):
        raise UsageError(f"{site} is in a text encoder, which has run before; give a site of the denoiser")
    axis = model.layout(site).channel_axis
    if axis is None:
        raise UsageError(f"{site} has the axes {model.layout(site).axes}, no channels")
    return axis


def _activation(
    of: Neuron, moment: Moment, prompts: Sequence[Prompt], latents: Tensor, probes: Sequence[Probe]
) -> Tensor:
    axis, seen = _channel_axis(of, moment.model), dict[int, Tensor]()

    def look(x: Tensor, context: CallContext) -> None:
        if of.channel >= x.shape[axis]:
            raise UsageError(f"{of.site} has channels 0 to {x.shape[axis] - 1}, not {of.channel}")
        at = -1 if context.step is None else context.step.index
        seen.setdefault(at, x.select(axis, of.channel).flatten(1).float().mean(1))

    moment.outcome(prompts, latents, [*probes, Intervention(Site(str(of.site)), look)])
    return torch.stack(list(seen.values())).mean(0)
