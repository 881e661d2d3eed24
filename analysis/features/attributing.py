"""Integrated gradients of a class over features, in one vector-Jacobian product.

Between an activation and the same with other features lies a straight line of codes, ``z0 + a (z - z0)``, on
which the classifier's logits are straight too: decoder and classifier are linear. So the gradient of p(class)
is ``(softmax's own gradient at a) W D``, and the mean over the path is taken before the product with W D, not
after it (Sundararajan et al. 2017; Shi et al. 2025 go back through the decoder at each of ten points).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

POINTS = 50


def slopes(
    weights: Float[Tensor, "class position channel"], decoder: Float[Tensor, "feature channel"]
) -> Float[Tensor, "class position feature"]:
    """Return how much each logit rises with each feature at each position."""
    return weights @ decoder.to(weights).mT


def attributed(
    change: Float[Tensor, "sample position feature"],
    slope: Float[Tensor, "class position feature"],
    logits: Float[Tensor, "sample class"],
    classes: Int[Tensor, " sample"],
    points: int = POINTS,
) -> Float[Tensor, "sample position feature"]:
    """Return what each feature adds to the probability of a class; the sum is its change along the path.

    What the dictionary does not explain stays as it is along the path, as it does in ``Dictionary.edit``.

    Args:
        change: codes less those of the baseline.
        slope: of the logits in the codes.
        logits: at the codes.
        classes: whose probability counts, for each sample.
        points: of the path, by the rule of Gauss and Legendre.
    """
    along = torch.einsum("npf,kpf->nk", change, slope)
    nodes, weights = (torch.from_numpy(v).to(change) / 2 for v in np.polynomial.legendre.leggauss(points))
    left = 0.5 - nodes  # how far from the codes, as a share of the path
    p = (logits[:, None] - left[None, :, None] * along[:, None]).softmax(-1)  # [sample, point, class]
    own = torch.nn.functional.one_hot(classes, logits.shape[1]).to(p)[:, None]
    gradient = ((p * own).sum(-1, keepdim=True) * (own - p) * weights[None, :, None]).sum(1)
    return change * torch.einsum("nk,kpf->npf", gradient, slope)
