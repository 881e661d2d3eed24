"""Composed prompts, AND and NOT: differences of several conditions are summed (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..run.context import Branch
from .acting import ActsAt, check_acts
from .parts import GuidanceBranch, GuidanceContext
from .value import Term, check_strength


@dataclass(frozen=True)
class Compose(Term):
    """Add ``sum_i w_i (eps_i - eps_uncond)`` over texts beside the prompt (Liu et al. 2022).

    A weight above 0 is AND, one below 0 NOT. The prompt is one of the conditions, with the weight that CFG
    gives it: ``CFG(7.5) + Compose({"a red thing": 7.5, "a yellow thing": -3.0})``. Each text is a branch that
    is called as it is written. AND is exact where the conditions are independent given the noisy picture;
    ``denoscope.probes.composition_gap`` measures how far a model is from that.

    Args:
        weights: for each text how strongly it counts, the same text for all samples.
        steps: at which steps it acts, or a factor for each.

    Raises:
        ValueError: for no texts, empty ones, and weights that are not finite.

    >>> from denoscope.models.guidance import CFG
    >>> both = CFG(4.0) + Compose({"a red thing": 4.0, "a yellow thing": -2.0})
    """

    weights: Mapping[str, float]
    steps: ActsAt = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.weights or not all(self.weights):
            raise UsageError(
                f"the weights are {dict(self.weights)!r}; give texts with weights: {{'red': 4.0}}"
            )
        for text, weight in self.weights.items():
            check_strength("Compose", f"the weight of {text!r}", weight)
        check_acts("Compose", self.steps)

    @property
    def strength(self) -> float:
        """The largest weight."""
        return max(map(abs, self.weights.values()))

    @property
    def needs(self) -> tuple[Branch, ...]:
        """The unconditional branch, and one for each text that counts."""
        return ("uncond", *self._texts)

    @property
    def _texts(self) -> tuple[str, ...]:
        return tuple(text for text, weight in self.weights.items() if weight)

    def made(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """Return the branches of ``needs``.

        Raises:
            ValueError: for a model that reads no prompts.
        """
        if not model.conditional:
            raise UsageError(f"{model.name} reads no prompts, so there is nothing to compose")
        texts = (GuidanceBranch(text, (text,)) for text in self._texts)
        return (GuidanceBranch("uncond", "negative_prompts"), *texts)

    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:  # noqa: ARG002
        """Return the weighted sum of the texts' differences from the unconditional output."""
        uncond = outputs["uncond"]
        each = [self.weights[text] * (outputs[text] - uncond) for text in self._texts]
        total = each[0]
        for one in each[1:]:
            total = total + one
        return total
