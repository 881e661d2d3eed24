"""Adaptive guidance: classifier-free guidance until the branches agree (Castillo et al. 2025)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from ..run.prediction import to_eps, to_x0
from .cfg import CFG
from .parts import Combined, GuidanceBranch, GuidanceContext
from .value import Guidance


@dataclass(frozen=True)
class Adaptive(Guidance):
    """Guide until the conditional and the unconditional prediction point the same way, sample by sample.

    After the step at which their cosine has passed the threshold, a sample goes on with the conditional
    branch alone (Castillo et al. 2025); when all samples of a batch have, the unconditional branch
    is not computed any more.

    In the paper the cosine is that of predicted noise. That one begins near 1, where all is noise, and so
    passes the threshold at once if it is let. Two choices guard against this: predictions are compared as
    clean pictures (``on="x0"``), and the rule is armed only once the cosine has risen above its minimum so
    far (``arm="after_min"``).

    Args:
        guidance: how it is guided until then.
        threshold: of the cosine.
        on: what is compared: predicted clean latents, or predicted noise.
        arm: from when on the rule holds; "immediate" is the paper's.

    Raises:
        ValueError: for a threshold that is no cosine; in a run, where nothing is guided.

    >>> Adaptive(CFG(7.5)).threshold
    0.991
    """

    guidance: CFG
    threshold: float = 0.991
    on: Literal["x0", "eps"] = "x0"
    arm: Literal["after_min", "immediate"] = "after_min"

    def __post_init__(self) -> None:
        check_fields(self)
        if not -1 <= self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold}; it is a cosine, from -1 to 1")
        for name, choices in (("on", ("x0", "eps")), ("arm", ("after_min", "immediate"))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it is one of {choices}")

    @property
    def told_scale(self) -> float:  # type: ignore[override]  # a value here
        """The guidance's."""
        return self.guidance.told_scale

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """The guidance's.

        Raises:
            ValueError: if they are not two.
        """
        found = self.guidance.branches(model)
        if len(found) == 1:
            raise UsageError(f"{self.guidance} does not guide {model.name}, so there is nothing to stop")
        return found

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:
        """The guidance's, until all samples have stopped."""
        if "stopped" in memory and bool(memory["stopped"].all()):
            return ("cond",)
        return self.guidance.active(step, memory)

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:
        """Raise ValueError if the guidance cannot act."""
        self.guidance.check(model, steps)

    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Combined:
        """Return the guided output of samples that have not stopped, the conditional one of others.

        Memory, one a sample: ``cosine``, ``lowest`` so far, ``stopped``.
        """
        cond = outputs["cond"]
        if "uncond" not in self.active(context.steps[0], memory) or "uncond" not in outputs:  # type: ignore[operator]
            return Combined(cond, memory=memory)
        output = self.guidance.combine(outputs, context, {})
        cosine = self._cosine(outputs, context)
        before = memory.get("lowest", torch.full_like(cosine, torch.inf))
        armed = cosine > before if self.arm == "after_min" else torch.ones_like(cosine, dtype=torch.bool)
        stopped = memory.get("stopped", torch.zeros_like(armed))
        output = torch.where(stopped.view(-1, *[1] * (cond.ndim - 1)), cond, output)
        stops = stopped | (armed & (cosine > self.threshold))
        told = {"cosine": cosine, "lowest": torch.minimum(before, cosine), "stopped": stops}
        return Combined(output, memory=told)

    def _cosine(self, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:
        """How alike the branches' predictions are, [sample]."""
        to = to_x0 if self.on == "x0" else to_eps
        scheduler, x, step = context.model.scheduler, context.model_input, context.each
        a, b = (to(scheduler, x, outputs[n], step).detach().flatten(1) for n in ("cond", "uncond"))
        return torch.cosine_similarity(a, b, dim=1)
