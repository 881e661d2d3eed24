"""Keep a region as it is in a reference: inpainting by projection of the predicted clean latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..arguments import check_fields
from ..errors import UsageError
from ..places.intervention import Spec
from ..run.context import Branch
from ..run.prediction import change_of_output, to_x0
from .acting import ActsAt, check_acts
from .parts import GuidanceContext
from .value import Term, check_strength


@dataclass(frozen=True, eq=False)
class RegionPreserve(Term):
    """Replace predicted clean latents in a region by a reference's: ``x_0 + weight mask (reference - x_0)``.

    At weight 1 the closed form of inpainting in steered diffusion (Nair et al. 2023): where the sampler's
    last step lands on the predicted clean latents, the region is the reference, up to rounding. Give it last:
    terms after it may move the region again.

    Args:
        mask: 1 where the reference is kept, 0 elsewhere; broadcasts over latents [sample, ...].
        reference: clean latents [sample, ...], of one sample or of each; ``model.encode_image(images)``.
        weight: how much of the way.
        steps: at which steps it acts, or a factor for each.

    Raises:
        ValueError: for a weight or values that are not finite, a mask outside of 0 to 1; in a run, for shapes
            that do not fit, and at pure noise where the network predicts noise.
    """

    mask: Tensor
    reference: Tensor
    weight: float = 1.0
    steps: ActsAt = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_strength("RegionPreserve", "weight", self.weight)
        check_acts("RegionPreserve", self.steps)
        if not self.reference.is_floating_point() or not bool(self.reference.isfinite().all()):
            raise UsageError(
                "the reference of RegionPreserve is clean latents: finite floating point numbers"
            )
        if self.mask.is_complex() or not bool(((self.mask >= 0) & (self.mask <= 1)).all()):
            raise UsageError("the mask of RegionPreserve has values outside of 0 (free) to 1 (kept)")

    def __repr__(self) -> str:
        spec = Spec("region", {"mask": self.mask, "reference": self.reference})
        return f"RegionPreserve({spec.digest[:12]}, weight={self.weight}, steps={self.steps})"

    @property
    def strength(self) -> float:
        """The weight."""
        return self.weight

    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:  # noqa: ARG002
        """Return what moves the clean latents in the region to the reference's."""
        scheduler, step = context.model.scheduler, context.each
        clean = to_x0(scheduler, context.model_input, output, step)
        try:
            mask = self.mask.to(clean).expand_as(clean)
            reference = self.reference.to(clean).expand_as(clean)
        except RuntimeError as error:
            raise UsageError(
                f"the mask is {tuple(self.mask.shape)} and the reference {tuple(self.reference.shape)}; both "
                f"broadcast over latents, which are {tuple(clean.shape)} here"
            ) from error
        return change_of_output(scheduler, self.weight * mask * (reference - clean), step)
