"""Guidance by a gradient: towards pictures that a judge scores higher (Dhariwal and Nichol 2021)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from ..run.prediction import Steps, change_of_output, scales, to_eps
from ..text.prompt import Prompt
from .acting import ActsAt, check_acts
from .parts import GuidanceContext
from .value import Term, check_strength


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a score may look at; any metric of ``denoscope.analysis.metrics`` that needs no clean run can.

    Args:
        latents: the clean latents that the guided output implies, [sample, ...].
        model_input: the noisy latents ``a x_0 + s eps``, [sample, ...].
        steps: one for all samples, or one a sample.
        prompts: what each sample reads.
        decode: turns latents into pictures.
        clean: None; there is no other run.
    """

    latents: Tensor
    model_input: Tensor
    steps: Steps
    prompts: tuple[Prompt, ...]
    decode: Callable[[Tensor], Tensor]
    clean: Tensor | None = None

    @cached_property
    def images(self) -> Tensor:
        """The pictures, in 0..1; decoded when first asked for."""
        return self.decode(self.latents)

    @property
    def step(self) -> Step:
        """The step, where all samples are at one.

        Raises:
            ValueError: if they are at several.
        """
        if not isinstance(self.steps, Step):
            raise UsageError("the samples are at several steps; use steps")
        return self.steps


class Gradient(Term):
    """Add a gradient: ``eps - scale s grad_x score`` (Dhariwal and Nichol 2021, eq. 14), in terms of eps.

    The gradient goes through the score and the decoder, not through the network: the estimate is
    ``(x_t - s eps) / a`` with eps held (as in Ma et al. 2023, EluCD). A score that reads ``model_input`` and
    ``step`` is a classifier of noisy pictures; with ``log p(y | x_t)`` guidance at scale 1 is exact.
    """

    scale: float
    normalised: bool

    @property
    def strength(self) -> float:
        """The scale."""
        return self.scale

    @abstractmethod
    def score(self, seen: Estimate) -> Tensor:
        """Return how good each sample is, [sample]."""

    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:  # noqa: ARG002
        """Return what moves the estimate up the score."""
        scheduler, step = context.model.scheduler, context.each
        with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):  # whole within checkpoints too
            x = context.model_input.detach().clone().requires_grad_()
            a, s = scales(scheduler, step, x)
            if bool((torch.as_tensor(a) == 0).any()):
                raise UsageError(
                    f"{type(self).__name__} acts at pure noise (sigma is inf), which implies no picture; "
                    "leave that step out: steps=range(1, n)"
                )
            eps = to_eps(scheduler, x.detach(), output.detach(), step)
            seen = Estimate((x - s * eps) / a, x, step, context.prompts, context.model.decode)
            grad = _gradient(self.score(seen), x)
        if self.normalised:  # as long as the noise, sample by sample
            grad = grad * _length(eps) / (s * _length(grad).clamp(min=torch.finfo(grad.dtype).tiny))
        return self.scale * change_of_output(scheduler, (s * s / a) * grad, step)


@dataclass(frozen=True)
class JudgeGradient(Gradient):
    """Guide by a judge: by the gradient of any score of the picture that is being made.

    Args:
        score: from an ``Estimate`` to one number a sample, [sample]; differentiable. Metrics are such scores:
            ``JudgeGradient(metrics.clip_score(judge, "a dog"), 20.0)``.
        scale: how strongly: 1 is one nat for one of the score, if the score is a log probability.
        normalised: make the change in eps ``scale`` times as long as eps itself, whatever the gradient's
            length, sample by sample.
        steps: at which steps it acts, or a factor for each.

    Raises:
        ValueError: for a scale that is not finite; in a run, for a score of another shape, one that does not
            depend on the picture or is not finite, and at pure noise.
    """

    function: Callable[[Any], Tensor]
    scale: float
    normalised: bool = False
    steps: ActsAt = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_strength("JudgeGradient", "scale", self.scale)
        check_acts("JudgeGradient", self.steps)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"JudgeGradient({name}, {self.scale}, normalised={self.normalised}, steps={self.steps})"

    def score(self, seen: Estimate) -> Tensor:
        """Return what the function says."""
        return self.function(seen)


def _gradient(score: Tensor, x: Tensor) -> Tensor:
    """The gradient of each sample's score."""
    if not isinstance(score, Tensor) or score.shape != (len(x),):
        given = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise UsageError(f"the score is {given}; it is one number a sample, a tensor of shape ({len(x)},)")
    if not score.requires_grad:
        raise UsageError(
            "the score does not depend on the picture, or its gradient was cut off (no_grad, detach, a "
            "conversion to numbers); compute it with torch from seen.images or seen.latents"
        )
    (found,) = torch.autograd.grad(score.sum(), x)
    if not bool(found.isfinite().all()):
        raise UsageError("the score's gradient is not finite; a log of 0, or a division by 0, in the score?")
    return found


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _length(x: Tensor) -> Tensor:
    """Euclidean length of each sample; broadcasts over x."""
    length: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return length.view(-1, *[1] * (x.ndim - 1))
