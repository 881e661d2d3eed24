"""Guidance by a changed copy: away from, or towards, what the network says under interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..places.intervention import Intervention
from ..run.context import Branch
from .acting import ActsAt, check_acts
from .parts import GuidanceBranch, GuidanceContext
from .value import Term, check_strength


@dataclass(frozen=True)
class Contrast(Term):
    """Add ``scale (changed - cond)``: go on in the direction in which interventions move the prediction.

    At scale 1 alone it is the intervention; beyond 1 it extrapolates; below 0 it moves away, as
    self-attention and perturbed-attention guidance do. Interventions may be those of a direction or of a
    dictionary: ``Contrast([direction.steer(1.0)], 3.0)``. In DDIM, asymmetric steps (Kwon et al. 2023) are
    ``Contrast`` with the factor ``sigma_t / (sigma_t - sigma_next)`` at each step.

    Args:
        interventions: what is done in the branch; their own ``when.branch`` does not count.
        scale: how strongly.
        steps: at which steps it acts, or a factor for each.
        name: of the branch.

    Raises:
        ValueError: for no interventions, and a scale that is not finite.
    """

    interventions: Sequence[Intervention]
    scale: float
    steps: ActsAt = None
    name: str = "changed"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.interventions:
            raise UsageError("a Contrast needs interventions; without any both branches are the same")
        check_strength("Contrast", "scale", self.scale)
        check_acts("Contrast", self.steps)

    @property
    def strength(self) -> float:
        """The scale."""
        return self.scale

    @property
    def needs(self) -> tuple[Branch, ...]:
        """The changed branch."""
        return (self.name,)

    def made(self, model: Adapter) -> tuple[GuidanceBranch, ...]:  # noqa: ARG002
        """Return the changed branch."""
        return (GuidanceBranch(self.name, interventions=tuple(self.interventions)),)

    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:  # noqa: ARG002
        """Return how far the changed branch is from the conditional one."""
        return self.scale * (outputs[self.name] - outputs["cond"])
