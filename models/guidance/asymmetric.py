"""The asymmetric step: an edited output for the picture, the plain one for the direction of the noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from .cfg import CFG
from .parts import Combined, GuidanceBranch, GuidanceContext
from .value import Guidance

EDITED = "edited"


@dataclass(frozen=True)
class Asymmetric(Guidance):
    """``x' = sqrt(a) x_0(edited) + sqrt(1 - a) eps(plain)``, a of the next step (Kwon et al. 2023, eq. 6).

    A branch "edited" is computed beside "cond". Interventions with ``branch="edited"`` act in it alone, so
    they reach the picture and not the direction; those with ``branch=None`` act in both, which is the plain
    step. Where nothing acts the run is the plain one. DDIM only; one row more for each sample.

    Args:
        guidance: of the run: a scale, or CFG. Both outputs are guided by it; "uncond" is shared.
        steps: at which the edited branch is computed; None is all. At others the step is plain.

    Raises:
        ValueError: for another guidance, and steps that are none.
    """

    guidance: float | CFG = 1.0
    steps: Collection[int] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps is not None and (not self.steps or min(self.steps) < 0):
            raise UsageError(f"steps is {self.steps!r}; it holds indices 0, 1, ... (0 is the noisiest)")
        _ = self._base

    @property
    def _base(self) -> CFG:
        return self.guidance if isinstance(self.guidance, CFG) else CFG(self.guidance)

    @property
    def told_scale(self) -> float:  # type: ignore[override]  # a value here
        """The scale that networks are told which were distilled from guidance."""
        return self._base.told_scale

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """Those of its guidance, and "edited"."""
        return (*self._base.branches(model), GuidanceBranch(EDITED))

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:
        """Those of its guidance, and "edited" at the chosen steps."""
        base = self._base.active(step, memory)
        if self.steps is None or step.index in self.steps:
            return None if base is None else (*base, EDITED)
        return ("uncond", "cond") if base is None else base

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:
        """Raise ValueError if it acts at steps that the run does not have."""
        self._base.check(model, steps)
        if self.steps is not None and max(self.steps) >= len(steps):
            raise UsageError(f"steps is {self.steps!r}, and the run has {len(steps)}: 0 to {len(steps) - 1}")

    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Tensor | Combined:
        """Return both guided outputs."""
        plain = self._base.combine(outputs, context, memory)
        if EDITED not in outputs:
            return plain
        edited = self._base.combine({**outputs, "cond": outputs[EDITED]}, context, memory)
        return Combined(edited, direction=plain)
