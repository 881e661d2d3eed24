"""LinearAG: the unconditional output as a linear function of those before (Castillo et al. 2025)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from .cfg import CFG
from .parts import Combined, GuidanceBranch, GuidanceContext
from .value import Guidance


@dataclass(frozen=True, eq=False)
class LinearAG(Guidance):
    """Classifier-free guidance whose unconditional output is computed at some steps, and estimated at others.

    ``uncond_t = sum_{i <= t} a_ti cond_i + sum_{i < t} b_ti uncond_i``, with one number for each pair of
    steps (Castillo et al. 2025); what was estimated takes part in later estimates.
    ``denoscope.probes.fit_linear_ag`` fits the numbers.

    Args:
        guidance: how the branches become one.
        cond: a, [step, step].
        uncond: b, [step, step]; the diagonal is not used.
        computed: steps at which the unconditional branch is computed.
        times: of the run that the numbers were fitted on.
        r2: share of the unconditional output's variance that each step's fit explains, [step].

    Raises:
        ValueError: for shapes that do not fit; in a run, for other steps than those of the fit.
    """

    guidance: CFG
    cond: Float[Tensor, "step step"]
    uncond: Float[Tensor, "step step"]
    computed: tuple[int, ...]
    times: tuple[float, ...]
    r2: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        n, shapes = len(self.times), (tuple(self.cond.shape), tuple(self.uncond.shape))
        if shapes != ((n, n), (n, n)) or not all(0 <= i < n for i in self.computed):
            raise UsageError(
                f"numbers {shapes} and computed steps {self.computed} do not fit {n} times; both are "
                f"[{n}, {n}], and steps 0 to {n - 1}"
            )

    def __repr__(self) -> str:
        return f"LinearAG({self.guidance}, {len(self.times)} steps, computed={self.computed})"

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
            raise UsageError(f"{self.guidance} does not guide {model.name}, so there is nothing to estimate")
        return found

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:  # noqa: ARG002
        """Both branches at the computed steps, else the conditional one."""
        return ("uncond", "cond") if step.index in self.computed else ("cond",)

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:
        """Raise ValueError for a run of other times than those of the fit."""
        self.guidance.check(model, steps)
        if tuple(s.t for s in steps) != self.times:
            raise UsageError(
                f"LinearAG was fitted on a run of {len(self.times)} steps at times {self.times[0]:g} to "
                f"{self.times[-1]:g}, and this one has {len(steps)} at {steps[0].t:g} to {steps[-1].t:g}; "
                "fit it with these steps and this scheduler"
            )

    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Combined:
        """Return the guided output; memory keeps the outputs of both branches at each step."""
        t = context.step.index
        if t < 0 or len(memory) != 2 * t:
            raise UsageError(
                f"LinearAG estimates from all steps before, and at step {t} knows {len(memory) // 2}; begin "
                "at step 0, or go on from a state of such a run"
            )
        kept = {**memory, f"cond {t}": outputs["cond"]}
        kept[f"uncond {t}"] = outputs["uncond"] if t in self.computed else self._estimate(kept, t)
        both = {"cond": outputs["cond"], "uncond": kept[f"uncond {t}"]}
        return Combined(self.guidance.combine(both, context, {}), memory=kept)

    def _estimate(self, kept: Mapping[str, Tensor], t: int) -> Tensor:
        """The unconditional output of a step."""
        total = float(self.cond[t, t]) * kept[f"cond {t}"]
        for i in range(t):
            total = total + float(self.cond[t, i]) * kept[f"cond {i}"]
            total = total + float(self.uncond[t, i]) * kept[f"uncond {i}"]
        return total
