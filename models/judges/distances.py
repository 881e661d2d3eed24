"""How far two sets of pictures are apart, by the features of a judge."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import checked
from ..errors import UsageError


@checked
def frechet(features: Float[Tensor, "picture feature"], others: Float[Tensor, "other feature"]) -> float:
    """Return the Fréchet distance between two sets of pictures (FID; Heusel et al. 2017).

    ``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of means and covariances. Small sets are biased upwards:
    ``kernel_distance`` is the better number where there are fewer than some hundred pictures a feature.

    Args:
        features: of one set, as ``judge.features`` gives them, without unit.
        others: of the other.

    Raises:
        ValueError: for fewer than two pictures in a set.
    """
    if min(len(features), len(others)) < 2:
        raise UsageError(f"sets of {len(features)} and {len(others)} pictures; give at least 2 of each")
    first, second = (f.double().cpu().numpy() for f in (features, others))
    (mean, other_mean), (cov, other_cov) = zip(
        *((f.mean(0), np.cov(f, rowvar=False)) for f in (first, second)), strict=True
    )
    roots = np.sqrt(np.linalg.eigvals(cov @ other_cov).real.clip(min=0)).sum()
    return float(((mean - other_mean) ** 2).sum() + np.trace(cov) + np.trace(other_cov) - 2 * roots)


@checked
def kernel_distance(
    features: Float[Tensor, "picture feature"], others: Float[Tensor, "fellow feature"]
) -> float:
    """Return the kernel distance (KID) between pictures and their fellows, without bias however few they are.

    The squared maximum mean discrepancy of the kernel ``(x·y / d + 1)³`` (Bińkowski et al. 2018) over pairs
    of different fellows, Gretton et al. 2012, eq. 4: 0 for equal pictures, and 0 on average for two draws
    of the same; so it may be below 0.

    Args:
        features: of one set, as ``judge.features`` gives them, without unit.
        others: of the other; picture i of both has the same seed, say.

    Raises:
        ValueError: for sets of different length, and fewer than two pictures.
    """
    n = len(features)
    if n != len(others) or n < 2:
        raise UsageError(f"sets of {n} and {len(others)} pictures; give as many of both, at least 2")
    x, y = features.double(), others.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    across = kernel(x, y)
    summed = kernel(x, x) + kernel(y, y) - across - across.T
    return float((summed.sum() - torch.diagonal(summed).sum()) / (n * (n - 1)))
