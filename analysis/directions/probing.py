"""A linear probe: the normal of a logistic regression, and how well it does on pairs that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ...models.errors import UsageError

Array = NDArray[np.float64]
FOLDS, CONTROLS = 5, 10


def probe(values: Float[Tensor, "2 pair seed channel"]) -> tuple[Tensor, dict[str, Any]]:
    """Return the normal [channel] in the units of the activations, and what is known of its accuracy.

    Whole pairs are held out, since a prompt's seeds are no new examples of the class. The control has the
    classes of pairs swapped at random: what it reaches, any labels would reach (Hewitt & Liang 2019).

    Args:
        values: the positive class first.

    Raises:
        ValueError: for fewer than two pairs, of which none can be held out.
    """
    n = values.shape[1]
    if n < 2:
        raise UsageError(
            f"a probe is tried on pairs that it was not fitted to, and there is {n}; give 2 or more"
        )
    x = values.double().flatten(0, 2).cpu().numpy()
    labels = np.broadcast_to(np.array([1, 0])[:, None, None], values.shape[:3])
    pairs = np.broadcast_to(np.arange(n)[None, :, None], values.shape[:3]).ravel()
    source = np.random.default_rng(0)
    swaps = [source.integers(0, 2, n) for _ in range(CONTROLS)]
    swapped = [np.where(s[None, :, None] == 1, 1 - labels, labels).ravel() for s in swaps]
    told = {
        "accuracy": _accuracy(x, labels.ravel(), pairs),
        "control": float(np.mean([_accuracy(x, y, pairs) for y in swapped])),
        "pairs": n,
    }
    return torch.from_numpy(_normal(x, labels.ravel())).to(values), told


def _normal(x: Array, y: NDArray[Any]) -> Array:
    scale = x.std(0)
    fitted = _regression().fit(x / np.where(scale > 0, scale, 1), y)
    weights: Array = np.where(scale > 0, fitted.coef_[0] / np.where(scale > 0, scale, 1), 0)
    return weights


def _accuracy(x: Array, y: NDArray[Any], pairs: NDArray[Any]) -> float:
    """The share of rows that are told right by a probe of other pairs."""
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415  # slow to import

    right = 0
    for known, out in GroupKFold(min(FOLDS, len(set(pairs)))).split(x, y, pairs):
        scale = np.where((s := x[known].std(0)) > 0, s, 1)
        right += int((_regression().fit(x[known] / scale, y[known]).predict(x[out] / scale) == y[out]).sum())
    return right / len(y)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # slow to import

    return LogisticRegression(max_iter=1000)
