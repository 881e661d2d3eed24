"""Which prompts are clearly worse than the best one, and need no more rows.

The prompts of one picture share their noise, so their errors are compared in pairs: for each rival the
difference to the best, with the standard error of that difference. Racing (Maron & Moore 1994) as Li et al.
2023 (arXiv:2303.16203, "Your Diffusion Model is Secretly a Zero-Shot Classifier", algorithm 2) prune, but by
a test instead of fixed numbers to keep.

Why the choice is that of all draws but for the stated rate: given the means over all draws, the means over
the first n have those for their expectation, and vary less than their standard errors say. So of the prompt
that all draws would choose, each comparison is wrong with at most its own level, whichever rival leads;
there are rivals times looks of them (Bonferroni). That is exact for normal sums of known variance; t
quantiles take its being estimated into account, with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.special import stdtrit
from torch import Tensor

TIE = 1e-6
"""Of a score: differences that rounding can make, and that decide nothing."""


def survivors(weighted: Float[Tensor, "draw level prompt"], error_rate: float) -> Bool[Tensor, " prompt"]:
    """Return which prompts are not clearly worse than the best.

    Args:
        weighted: squared errors, each level with its weight; at least two draws.
        error_rate: of one comparison.
    """
    draws = len(weighted)
    totals = weighted.mean(0).sum(0)
    behind = weighted - weighted[..., totals.argmin(), None]
    mean, parts = behind.mean(0).sum(0), behind.var(0) / draws
    variance = parts.sum(0)
    freedom = variance.square() / (parts.square().sum(0) / (draws - 1))  # NaN where nothing differs
    far = torch.from_numpy(stdtrit(freedom.numpy(), 1 - error_rate)) * variance.sqrt()
    rounding = TIE * totals.min()
    return ~((mean > far) & (mean > rounding))  # NaN compares as no: it stays
