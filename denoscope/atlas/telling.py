"""What a feature tells: words of the prompt, and labels of a judge, by samples that did not choose them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.directions.scoring import auc
from ..analysis.features.scoring import auc_interval

Mask: TypeAlias = NDArray[np.bool_]
FEWEST = 4
"""Samples with a word or label, and without it, in each half."""
NAMED = 3
"""Names that are said of a feature, at most; of those that it tells at all."""
COLUMNS = ["feature", "kind", "name", "auc", "low", "high", "tried"]


def half(samples: int) -> Mask:
    """Return which samples choose names, [sample]: half of them, drawn, as prompts may take turns."""
    drawn: Mask = np.random.default_rng(0).permutation(samples) % 2 == 0
    return drawn


def named(prompts: Sequence[str], said: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Mask]:
    """Return who has which word or label, [sample], by (kind, name); those of too few samples are left out.

    >>> list(named(["a cat", "a dog"] * 16, {"colour": ["red"] * 31 + ["blue"]}))
    [('word', 'cat'), ('word', 'dog')]
    """
    words = [set(re.findall(r"\w+(?:[-']\w+)*", p.lower())) for p in prompts]
    have = {("word", w): np.array([w in own for own in words]) for w in sorted(set().union(*words))}
    for kind, labels in said.items():
        have |= {(kind, label): np.array(labels) == label for label in sorted(set(labels))}
    return {name: own for name, own in have.items() if _enough(own)}


def _enough(own: Mask) -> bool:
    first = half(len(own))
    return all(FEWEST <= part.sum() <= len(part) - FEWEST for part in (own[first], own[~first]))


def tells(
    activity: NDArray[np.float64], features: Sequence[int], have: Mapping[tuple[str, str], Mask]
) -> pd.DataFrame:
    """Return what features tell best: feature, kind, name, auc, low, high, tried.

    Names are chosen on one half of the samples; their AUCs and 95 % intervals (bootstrap) are of the other,
    for the best of many is too good on the samples that chose it.

    Args:
        activity: [sample, feature].
        features: which.
        have: who has what, as from ``named``.
    """
    lines, first = [], half(len(activity))
    for feature in features:
        x, rest = activity[first, feature], activity[~first, feature]
        scored = {name: auc(x[own[first]], x[~own[first]]) for name, own in have.items()}
        best = sorted((name for name in scored if scored[name] > 0.5), key=lambda n: -scored[n])
        for name in best[:NAMED]:
            own = have[name][~first]
            low, high = auc_interval(rest[own], rest[~own], 300, 0.95, 0)
            lines.append((feature, *name, auc(rest[own], rest[~own]), low, high, len(have)))
    return pd.DataFrame(lines, columns=COLUMNS)
