"""Training on in a few directions of each weight matrix, so that what changes fits into a small file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ....errors import UsageError

SCALE = 4.0
"""How much stronger a change is than its factors' product: small factors learn fast."""
KINDS = (nn.Linear, nn.Conv2d)


class LowRank(nn.Module):
    """A weight [out, ...] as it was, and a change of rank ``rank``, which is 0 at first (Hu et al. 2021)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rest = weight[0].numel()
        self.left = nn.Parameter(torch.zeros(len(weight), rank))
        self.right = nn.Parameter(torch.empty(rank, rest).uniform_(-1, 1) / rest**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that acts; the one that was is not trained."""
        return weight.detach() + SCALE * (self.left @ self.right).view_as(weight)


def in_few_directions(model: nn.Module, rank: int) -> None:
    """Let each weight matrix, also of convolutions, change in ``rank`` directions; all else is trained whole.

    Raises:
        ValueError: for a rank below 1.
    """
    if rank < 1:
        raise UsageError(f"rank is {rank}; each matrix changes in at least 1 direction")
    for module in [m for m in model.modules() if isinstance(m, KINDS)]:
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def whole(model: Any) -> Any:
    """Make the weights of a model plain numbers again, as it is saved, and return it."""
    for module in model.modules():
        if isinstance(module, KINDS) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model
