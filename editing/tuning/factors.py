"""Changes of low rank that are learned: two factors of each weight, put in place while a call lasts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from ...models.run.levels import Step
from ...models.site import Site
from ...probes.directions.moments import Space, predicted
from ...probes.trace import expand
from ..layers import weight_name
from ..lowrank import LowRank

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out")


class Asked(nn.Module):
    """A denoiser that can be asked with other weights in place of its own, for the length of a call."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.part = model.input_site.component
        self.denoiser = model.components[self.part]
        self._ask = model

    def forward(self, *asked: Any) -> Tensor:
        """As ``predicted``; ``functional_call`` puts the other weights in place for as long."""
        return predicted(self._ask, *asked)

    def with_weights(
        self,
        weights: Mapping[str, Tensor],
        space: Space,
        x: Tensor,
        steps: Sequence[Step],
        prompts: Sequence[Prompt],
    ) -> Tensor:
        """Return what is predicted with some weights, by full name, that are not the model's."""
        own = {f"denoiser.{name.removeprefix(f'{self.part}.')}": w for name, w in weights.items()}
        found: Tensor = functional_call(self, own, (space, x, steps, prompts))
        return found


def linear_weights(model: Model, sites: Sequence[str | Site] | None) -> dict[str, Tensor]:
    """Return the weights of linear layers at sites of the denoiser, by full name.

    Args:
        model: an opened model.
        sites: patterns too; None is all projections of attention within the picture, and of joint attention.

    Raises:
        ValueError: for sites without a linear layer of the denoiser.
        LookupError: for sites that the model does not have, and a denoiser without attention.
    """
    part = model.input_site.component
    patterns = sites if sites is not None else _usual(model, part)
    some = dict.fromkeys(s for pattern in patterns for s in expand(model, pattern))
    linear = [s for s in some if s.component == part and isinstance(model.module(s), nn.Linear)]
    found = {weight_name(model, s): model.parameter(weight_name(model, s)).detach() for s in linear}
    if not found:
        raise UsageError(
            f"sites {[str(p) for p in patterns]} have no linear layer of the {part}; choose some of "
            f"model.sites('{part}/*/self_attn.out')"
        )
    return found


def _usual(model: Model, part: str) -> list[Site]:
    kinds = [f"{a}.{p}" for a in ("self_attn", "joint_attn") for p in PROJECTIONS]
    found = [s for s in model.places() if s.component == part and s.kind in kinds]
    if not found:
        raise NotFoundError(f"the {part} of {model.name} has no attention; name the sites: sites=[...]")
    return found


def started(weights: Mapping[str, Tensor], rank: int, seed: int) -> dict[str, Tensor]:
    """Both factors of each weight; as for a LoRA, the one is drawn and the other 0."""
    source, found = torch.Generator().manual_seed(seed), {}
    for name, w in weights.items():
        drawn = torch.randn(rank, w.shape[1], generator=source) / math.sqrt(w.shape[1])
        found[f"{name}/right"] = drawn.to(w.device).requires_grad_()
        found[f"{name}/left"] = torch.zeros(w.shape[0], rank, device=w.device).requires_grad_()
    return found


def moved(weights: Mapping[str, Tensor], factors: Mapping[str, Tensor], s: float = 1.0) -> dict[str, Tensor]:
    """The weights with so many times the change."""
    return {n: w + (s * factors[f"{n}/left"] @ factors[f"{n}/right"]).to(w.dtype) for n, w in weights.items()}


def change_of(factors: Mapping[str, Tensor], name: str) -> LowRank | Tensor:
    """The change of one weight, as an Edit takes it."""
    left, right = (factors[f"{name}/{side}"].detach().cpu() for side in ("left", "right"))
    return LowRank(left, right).compact()
