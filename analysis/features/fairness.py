"""How far the shares of classes are from what they should be: fairness discrepancy, bias score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.errors import NotFoundError, UsageError
from ...models.suggest import near
from ..localisation.bootstrap import check_resampling, quantiles

Array: TypeAlias = NDArray[np.float64]
Shares: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Discrepancy:
    """How far shares are from a target.

    Args:
        value: the distance; 0 is none.
        low: lower bound, by drawing pictures anew. Distances are never negative, so the interval of a fair
            model lies above 0: compare with ``chance``.
        high: upper bound.
        chance: what a model that meets the target shows in as few pictures, as a root mean square.
        shares: of each class.
        target: what each should be.
        samples: how many pictures.
    """

    value: float
    low: float
    high: float
    chance: float
    shares: Mapping[str, float]
    target: Mapping[str, float]
    samples: int

    def __post_init__(self) -> None:
        check_fields(self)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        told = f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], chance {self.chance:.3f}"
        return f"Discrepancy({told}; {self.samples} pictures: {shares})"


@checked
def fairness_discrepancy(
    labels: Sequence[str] | Float[Tensor, "sample class"],
    target: Shares | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Discrepancy:
    """Return the Euclidean distance of the shares of classes from a target (FD; Shi et al. 2025).

    Args:
        labels: the class of each picture; or what a judge gives each, [sample, class], rows that sum to 1, of
            which the mean counts. The classes of such rows are those of the target in order, or "0", "1", ...
        target: class -> share; None is an equal share of each class that is seen.
        level: how often such intervals hold the true distance.
        n_resamples: of the bootstrap over pictures.
        seed: of the resamples.

    Raises:
        ValueError: for no labels, labels of one class without a target, shares that do not sum to 1,
            probabilities that are none.
        LookupError: for a label that the target does not have.

    >>> fairness_discrepancy(["woman"] * 3 + ["man"])
    Discrepancy(0.354 [0.000, 0.707], chance 0.354; 4 pictures: woman 75%, man 25%)
    >>> round(fairness_discrepancy(["man"] * 4, {"woman": 0.5, "man": 0.5}).value, 3)  # sqrt((K - 1) / K)
    0.707
    """
    check_resampling(level, n_resamples)
    if seed < 0:
        raise UsageError(f"seed is {seed}; it is a whole number from 0 up")
    rows, names = _rows(labels, target)
    wanted = _wanted(names, target)
    goal = np.array([wanted[name] for name in names])
    drawn = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), n_resamples)
    low, high = quantiles(_distance(drawn @ rows / len(rows), goal), level)
    shares = rows.mean(0)
    return Discrepancy(
        float(_distance(shares, goal)),
        float(low),
        float(high),
        math.sqrt(max(0.0, 1 - float(goal @ goal)) / len(rows)),
        dict(zip(names, shares.tolist(), strict=True)),
        wanted,
        len(rows),
    )


@checked
def bias_score(
    labels: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Discrepancy:
    """Return how unequal the classes are in the pictures of each prompt, as a mean over prompts.

    For one prompt the mean of ``|n_i - n_j| / n`` over pairs of classes (the bias score of InvDiff's code): 0
    where all are equal, and 1 for one of two alone. Unlike a distance of all shares together it sees prompts
    that are biased in opposite ways. Intervals draw prompts, and pictures of each, anew.

    Args:
        labels: prompt -> the class of each of its pictures.
        classes: at least two.
        level: how often such intervals hold the true score.
        n_resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        ValueError: for no prompts, a prompt without pictures, fewer than two classes.
        LookupError: for a label that is none of the classes.

    >>> bias_score({"a nurse": ["woman"] * 4, "a pilot": ["man"] * 4}, ["woman", "man"]).value
    1.0
    """
    check_resampling(level, n_resamples)
    names = list(dict.fromkeys(classes))
    if not labels or len(names) < 2 or seed < 0:
        raise UsageError(f"{len(labels)} prompts, classes {names}, seed {seed}; give a prompt, two classes")
    target = dict.fromkeys(names, 1 / len(names))
    rows = [_rows(said, target)[0] for said in labels.values()]
    source, found = np.random.default_rng(seed), []
    for _ in range(n_resamples):
        some = source.integers(len(rows), size=len(rows))
        found.append(_unequal([rows[i][source.integers(len(rows[i]), size=len(rows[i]))] for i in some]))
    low, high = quantiles(np.array(found), level)
    every = np.concatenate(rows)
    fair = _unequal([source.multinomial(1, list(target.values()), len(r)) for r in rows for _ in range(50)])
    return Discrepancy(_unequal(rows), float(low), float(high), fair,
                       dict(zip(names, every.mean(0).tolist(), strict=True)), target, len(every))  # fmt: skip


def _unequal(rows: Sequence[NDArray[np.generic]]) -> float:
    """The mean over prompts of how far two classes' shares are apart, of ones and zeros [sample, class]."""
    each = []
    for one in rows:
        shares = one.mean(0)
        first, second = np.triu_indices(len(shares), 1)
        each.append(np.abs(shares[first] - shares[second]).mean())
    return float(np.mean(each))


def _distance(shares: Array, goal: Array) -> Array:
    found: Array = np.sqrt(((shares - goal) ** 2).sum(-1))
    return found


def _rows(labels: Sequence[str] | Tensor, target: Shares | None) -> tuple[Array, list[str]]:
    """What each picture gives each class, [sample, class], and their names."""
    if isinstance(labels, Tensor) and not labels.ndim or not len(labels):
        raise UsageError("there are no labels; give the class of each picture")
    if isinstance(labels, Tensor):
        rows = labels.detach().double().cpu().numpy()
        names = list(target) if target else [str(i) for i in range(rows.shape[-1])]
        sums = rows.ndim == 2 and bool(np.isfinite(rows).all() and (np.abs(rows.sum(1) - 1) < 1e-3).all())
        if not sums or (rows < 0).any() or rows.shape[1] != len(names):
            raise UsageError(
                f"labels are {tuple(rows.shape)} numbers for the classes {names}; give probabilities "
                "[sample, class] whose rows sum to 1, with a target of as many classes"
            )
        return rows, names
    names = list(target or dict.fromkeys(labels))
    if unknown := [label for label in labels if label not in names]:
        raise NotFoundError(
            f"the target has no class {unknown[0]!r}: leave such pictures out, or give every class a share, "
            f"0 for example; {near(unknown[0], names)}"
        )
    return np.array([[label == name for name in names] for label in labels], dtype=np.float64), names


def _wanted(names: Sequence[str], target: Shares | None) -> dict[str, float]:
    if target is None and len(names) < 2:
        raise UsageError(
            f"all labels are {names}, so the classes are not known; give target={{'woman': 0.5, 'man': 0.5}}"
        )
    return check_shares(target if target is not None else dict.fromkeys(names, 1 / len(names)))


def check_shares(target: Shares) -> dict[str, float]:
    """Return shares of classes.

    Raises:
        UsageError: if they are not from 0 to 1, or do not sum to 1.
    """
    shares = list(target.values())
    if not shares or not all(0 <= s <= 1 for s in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(
            f"the target is {dict(target)}; its shares are from 0 to 1 and sum to 1: "
            "{'woman': 0.5, 'man': 0.5}"
        )
    return dict(target)
