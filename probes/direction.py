"""A direction at a site: what analyses find, and what steering adds or takes away."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..models.run.context import When
from ..models.run.levels import Step
from ..models.site import Site
from .intervene import Intervention


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector over the channels at a site.

    Args:
        site: where.
        vector: [channel]; it is normalised.
        axis: the channel axis of the activation [sample, ...]: 1 for pictures, -1 for tokens.

    Raises:
        ValueError: for a vector that is not one-dimensional, or is zero or not finite.
    """

    site: Site
    vector: Float[Tensor, " channel"]
    axis: int = -1

    def __post_init__(self) -> None:
        norm = self.vector.norm()
        if self.vector.ndim != 1 or not norm > 0 or not norm.isfinite():
            shape = tuple(self.vector.shape)
            raise ValueError(
                f"a direction needs one finite, non-zero vector [channel]; got shape {shape}, norm {norm}"
            )
        object.__setattr__(self, "site", Site(str(self.site)))
        object.__setattr__(self, "vector", self.vector / norm)

    def component(self, x: Tensor) -> Tensor:
        """Return how far x points along the direction; the channel axis is kept, with size 1."""
        return (x * self._along(x)).sum(self.axis, keepdim=True)

    def steer(self, alpha: float, when: When = When()) -> Intervention:
        """Add ``alpha`` times the direction."""
        return Intervention(self.site, lambda x, _: x + alpha * self._along(x), when)

    def ablate(self, when: When = When()) -> Intervention:
        """Project the direction out: ``x - (x·v) v``."""

        def fn(x: Tensor, _: Step | None) -> Tensor:
            return x - self.component(x) * self._along(x)

        return Intervention(self.site, fn, when)

    def _along(self, x: Tensor) -> Tensor:
        channels = x.shape[self.axis]
        if channels != len(self.vector):
            raise ValueError(
                f"the direction at {self.site} has {len(self.vector)} channels, but axis {self.axis} of the "
                f"activation {tuple(x.shape)} has {channels}"
            )
        shape = [1] * x.ndim
        shape[self.axis] = channels
        return self.vector.to(x).view(shape)
