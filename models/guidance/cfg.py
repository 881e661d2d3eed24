"""Classifier-free guidance (Ho and Salimans 2022), with the rescaling of Lin et al. 2023."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from .acting import ActsAt, check_acts, factor, factors
from .parts import GuidanceBranch, GuidanceContext
from .value import Guidance


@dataclass(frozen=True)
class CFG(Guidance):
    """Classifier-free guidance: ``uncond + scale * (cond - uncond)`` (Ho and Salimans 2022, eq. 6).

    Args:
        scale: 1 or less samples without guidance. Networks that were distilled from guidance (FLUX.1 dev)
            are told it instead.
        true_scale: the scale that acts on those networks; None is what the model is set to (1: none).
        rescale: how far the guided output is brought back to the standard deviation of the conditional one:
            0 is not, 1 wholly (Lin et al. 2023, eq. 14-16).
        steps: at which steps the branches are guided (an interval, Kynkäänniemi et al. 2024), or a factor for
            each (Wang et al. 2024): ``scale - 1``, what it does beyond the conditional branch, is multiplied
            by it. At factor 0 the unconditional branch is not computed. None is all steps alike.

    Raises:
        ValueError: for a scale below 0, infinite or NaN, a rescale outside of 0 to 1, and factors that are
            not finite.

    >>> guided = CFG(4.0, steps=range(12))  # the later steps are not guided
    """

    scale: float
    true_scale: float | None = None
    rescale: float = 0.0
    steps: ActsAt = None

    def __post_init__(self) -> None:
        check_fields(self)
        for scale in (self.scale, self.true_scale):
            if scale is not None and (not scale >= 0 or math.isinf(scale)):
                raise UsageError(f"guidance is {scale}; it is a number from 0 up (1 or less: no guidance)")
        if not 0 <= self.rescale <= 1:
            raise UsageError(f"guidance rescale is {self.rescale}; it is a number from 0 (none) to 1 (whole)")
        check_acts("CFG", self.steps)

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
        """The conditional branch, and above scale 1 the one that reads the negative prompts.

        Raises:
            ValueError: for a rescale of a run that is not guided.
        """
        cond = GuidanceBranch("cond")
        if self.acting(model) > 1:
            return (GuidanceBranch("uncond", "negative_prompts"), cond)
        if self.rescale:
            raise UsageError(f"{self} has nothing to rescale on {model.name}: the run is not guided")
        return (cond,)

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:  # noqa: ARG002
        """Both branches, or at factor 0 the conditional one."""
        return ("uncond", "cond") if factor(self.steps, step) else ("cond",)

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:  # noqa: ARG002
        """Raise ValueError if it acts at steps that the run does not have."""
        check_acts("CFG", self.steps, len(steps))

    def combine(
        self,
        outputs: Mapping[Branch, Tensor],
        context: GuidanceContext,
        memory: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Return the guided output."""
        cond, uncond = outputs["cond"], outputs.get("uncond")
        share, full = factors(self.steps, context.steps, cond), self.acting(context.model)
        if uncond is None or full <= 1 or (isinstance(share, float) and share == 0):
            return cond
        scale: float | Tensor = full
        if not isinstance(share, float) or share != 1:  # 1 + 1 (s - 1) need not be s to the bit
            scale = 1 + share * (full - 1)
        out = uncond + scale * (cond - uncond)
        return _rescaled(out, cond, self.rescale) if self.rescale else out


def _rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """Bring guided outputs back to the standard deviation of the conditional ones, by so much."""
    axes = list(range(1, cond.ndim))
    whole = guided * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return share * whole + (1 - share) * guided
