"""Classifier-free guidance (Ho and Salimans 2022), with the rescaling of Lin et al. 2023."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..adapter import Adapter
from ..run.context import Branch
from .value import Guidance, GuidanceBranch, GuidanceContext


@dataclass(frozen=True)
class CFG(Guidance):
    """Classifier-free guidance: ``uncond + scale * (cond - uncond)`` (Ho and Salimans 2022, eq. 6).

    Args:
        scale: 1 or less samples without guidance. Networks that were distilled from guidance (FLUX.1 dev)
            are told it instead.
        true_scale: the scale that acts on those networks; None is what the model is set to (1: none).

    Raises:
        ValueError: for a scale below 0, infinite or NaN.
    """

    scale: float
    true_scale: float | None = None

    def __post_init__(self) -> None:
        for scale in (self.scale, self.true_scale):
            if scale is not None and (not scale >= 0 or math.isinf(scale)):
                raise ValueError(f"guidance is {scale}; it is a number from 0 up (1 or less: no guidance)")

    @property
    def told_scale(self) -> float:  # type: ignore[override]  # a value here
        """The scale that networks are told which were distilled from guidance."""
        return self.scale

    def acting(self, model: Adapter) -> float:
        """Return the scale between this model's branches; 1 or less: there is one branch."""
        if not model.conditional:
            return 1.0
        if not model.tells_guidance:
            return self.scale
        return model.true_cfg_scale if self.true_scale is None else self.true_scale

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """The conditional branch, and above scale 1 the one that reads the negative prompts."""
        cond = GuidanceBranch("cond")
        return (GuidanceBranch("uncond", "negative_prompts"), cond) if self.acting(model) > 1 else (cond,)

    def combine(
        self,
        outputs: Mapping[Branch, Tensor],
        context: GuidanceContext,
        memory: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Return the guided output."""
        cond, uncond = outputs["cond"], outputs.get("uncond")
        return cond if uncond is None else uncond + self.acting(context.model) * (cond - uncond)
