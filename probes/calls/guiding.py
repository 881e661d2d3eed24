"""Terms of guidance inside a pipeline's own call: they act on what goes into ``scheduler.step``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...models.base import Model
from ...models.errors import UsageError
from ...models.guidance.parts import GuidanceContext
from ...models.guidance.value import Guidance, Sum, Term, label
from ...models.run.levels import Step
from ...models.run.schedule import scaled
from ..guiding.log import GuidanceLog, LogKeeper
from .state import Running


class Guide:
    """Adds terms to the guided output of a pipeline, and keeps what they added.

    Args:
        guidance: a term, or a sum of terms.

    Raises:
        ValueError: for what has or needs branches: those are the pipeline's.
    """

    def __init__(self, guidance: Guidance) -> None:
        self.guidance = _terms_alone(guidance)
        self.failed()

    def failed(self) -> None:
        """Forget what was kept."""
        self.log = LogKeeper()

    def finished(self, model: Model, steps: Sequence[Step]) -> GuidanceLog | None:
        """Return what was added in a run, and forget it.

        Raises:
            ValueError: if a term was to act at steps that the run did not have.
        """
        self.guidance.check(model, steps)
        log = self.log.result()
        self.failed()
        return log

    def output(self, model: Model, running: Running, scheduler: Any, given: Mapping[str, Any]) -> Tensor:
        """Return what goes into ``scheduler.step`` in place of the pipeline's output.

        Args:
            model: the opened pipeline, in the size of the call.
            running: what is known of the call.
            scheduler: the one that steps.
            given: its arguments: ``model_output``, ``timestep``, ``sample``.
        """
        output, x, step = given["model_output"], given["sample"], running.step
        if step is None:
            return torch.as_tensor(output)
        rows, whole = running.rows, max((r.stop for r in running.rows.values()), default=0)
        joint = len(rows) > 1 and len(x) == whole  # DiT steps all branches together, and all are the same
        some = rows["cond"] if joint else slice(None)
        model_input = scaled(scheduler, x[some], given["timestep"])
        prompts = tuple(running.prompts.get("cond", ()))
        context = GuidanceContext(model, (step,) * len(model_input), model_input, prompts)
        made = self.guidance.combine({"cond": output[some]}, context, {})
        self.log.keep(step, output[some], made.added)
        return torch.cat([made.output] * len(rows)) if joint else made.output


def _terms_alone(guidance: Guidance) -> Sum:
    found = Sum(None, (guidance,)) if isinstance(guidance, Term) else guidance
    why = (
        "the pipeline makes its branches and combines them itself (guidance_scale=...), and what acts here "
        "sees only what goes into scheduler.step; give terms without branches, such as JudgeGradient or "
        "RegionPreserve, or sample by denoscope.trace(..., guidance=...)"
    )
    if not isinstance(found, Sum) or found.base is not None:
        base = found.base if isinstance(found, Sum) else found
        raise UsageError(f"{base} cannot act in a pipeline's own call: {why}")
    for term in found.terms:
        if term.strength and term.needs:
            raise UsageError(f"{label(term)} needs the branches {term.needs}: {why}")
    return found
