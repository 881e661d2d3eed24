"""What activations at one step tell of the class: a linear classifier, tried on what it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier of all numbers of an activation, ``softmax(weights x + bias)``.

    Args:
        weights: [class, number].
        bias: [class].
        right: whether each sample is told right by a classifier of other samples, [sample].
        shuffled: the same where the labels are shuffled.
    """

    weights: Array
    bias: Array
    right: Array
    shuffled: Array


def classifier(
    x: Float[Tensor, "sample ..."], labels: Labels, groups: Labels, n_classes: int, seed: int = 0
) -> Classifier:
    """Fit a logistic regression to standardised activations, and to shuffled labels as a control.

    A ridge does not see how its inputs are turned, so the fit is in the span of the samples: the same
    weights, from as many numbers a sample as there are samples.

    Args:
        x: of each sample.
        labels: the class of each, from 0 up.
        groups: samples of one group (one pair) are held out together, and change labels among themselves.
        n_classes: how many there are.
        seed: of the shuffle.
    """
    flat = x.flatten(1).double().cpu().numpy()
    mean, scale = flat.mean(0), flat.std(0)
    scale = np.where(scale > 0, scale, 1) * np.sqrt(flat.shape[1])
    standard = (flat - mean) / scale
    turned, inverse = _span(standard)
    fitted = _regression().fit(turned, labels)
    weights = _symmetric(fitted.coef_, n_classes) @ inverse / scale
    bias = _symmetric(fitted.intercept_[:, None], n_classes)[:, 0] - weights @ mean
    other = _shuffled(labels, groups, np.random.default_rng(seed))
    return Classifier(weights, bias, _right(turned, labels, groups), _right(turned, other, groups))


def _span(x: Array) -> tuple[Array, Array]:
    """Return samples turned to the axes of their span [sample, axis], and the way back [axis, number]."""
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values.max() * 1e-10
    length = np.sqrt(values[kept])
    turned: Array = vectors[:, kept] * length
    return turned, (vectors[:, kept] / length).T @ x


def _symmetric(coef: Array, n_classes: int) -> Array:
    """Two classes have one row, which is shared between them, so that softmax says the same."""
    return np.concatenate([-coef / 2, coef / 2]) if n_classes == 2 else coef


def _shuffled(labels: Labels, groups: Labels, source: np.random.Generator) -> Labels:
    """Labels in random order: within groups, or among all where each group is one sample."""
    if len(set(groups.tolist())) == len(groups):
        return source.permutation(labels)
    found = labels.copy()
    for group in np.unique(groups):
        own = groups == group
        found[own] = source.permutation(labels[own])
    return found


def _right(x: Array, labels: Labels, groups: Labels) -> Array:
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415  # slow to import

    right = np.zeros(len(labels))
    folds = min(FOLDS, len(set(groups.tolist())), *np.unique(labels, return_counts=True)[1].tolist())
    for known, out in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(x, labels, groups):
        if len(set(labels[known].tolist())) > 1:
            right[out] = _regression().fit(x[known], labels[known]).predict(x[out]) == labels[out]
    return right


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # slow to import

    return LogisticRegression(C=100.0, max_iter=1000)
