"""What a feature tells: words of the prompt, and labels of a judge, by samples that did not choose them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.directions.scoring import auc
from ..analysis.features.scoring import auc_interval

FEWEST = 4
"""Samples with a word or label, and without it, in each half."""
NAMED = 3
"""Names that are said of a feature, at most; of those that it tells at all."""
COLUMNS = ["feature", "kind", "name", "auc", "low", "high", "tried"]


def named(
    prompts: Sequence[str], said: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Return who has which word or label, [sample], by (kind, name); those of too few samples are left out.

    >>> found = named(["a cat", "a dog"] * 8, {})
    >>> list(found), found["word", "cat"].sum()
    ([('word', 'cat'), ('word', 'dog')], 8)
    """
    words = [set(re.findall(r"\w+(?:[-']\w+)*", p.lower())) for p in prompts]
    have = {("word", w): np.array([w in own for own in words]) for w in sorted(set().union(*words))}
    for kind, labels in said.items():
        have |= {(kind, label): np.array(labels) == label for label in sorted(set(labels))}
    return {name: own for name, own in have.items() if _enough(own)}


def _enough(own: NDArray[np.bool_]) -> bool:
    halves = (own[::2], own[1::2])
    return all(FEWEST <= half.sum() <= len(half) - FEWEST for half in halves)


def tells(
    activity: NDArray[np.float64], features: Sequence[int], have: Mapping[tuple[str, str], NDArray[np.bool_]]
) -> pd.DataFrame:
    """Return what features tell best: feature, kind, name, auc, low, high, tried.

    Names are chosen on every second sample; their AUCs and 95 % intervals (bootstrap) are of the others, for
    the best of many is too good on the samples that chose it.

    Args:
        activity: [sample, feature].
        features: which.
        have: who has what, as from ``named``.
    """
    lines = []
    for feature in features:
        x = activity[:, feature]
        scored = {name: auc(x[::2][own[::2]], x[::2][~own[::2]]) for name, own in have.items()}
        for name in sorted((n for n in scored if scored[n] > 0.5), key=lambda n: -scored[n])[:NAMED]:
            own, rest = have[name][1::2], x[1::2]
            low, high = auc_interval(rest[own], rest[~own], 300, 0.95, 0)
            lines.append((feature, *name, auc(rest[own], rest[~own]), low, high, len(have)))
    return pd.DataFrame(lines, columns=COLUMNS)
