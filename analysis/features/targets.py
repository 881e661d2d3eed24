"""Which class each sample is to show, so that the whole has exactly the shares that are wanted."""

from __future__ import annotations

import numpy as np

from ...models.arguments import checked
from ...models.errors import UsageError
from .fairness import Shares, check_shares

MOST = 10_000_000


@checked
def stratified(target: Shares, samples: int, *, seed: int = 0) -> list[str]:
    """Return a class for each sample, with exactly the shares of a target, in random order.

    Published code draws one class for a whole batch, so that shares are right over many batches alone. What
    is left over of shares that do not divide the samples goes to the largest remainders.

    Args:
        target: class -> share.
        samples: how many.
        seed: of the order.

    Raises:
        ValueError: for shares that do not sum to 1, and no samples.

    >>> stratified({"woman": 0.5, "man": 0.5}, 6)
    ['man', 'woman', 'man', 'man', 'woman', 'woman']
    """
    wanted = check_shares(target)
    if not 1 <= samples <= MOST or seed < 0:
        raise UsageError(f"samples is {samples}, seed {seed}; give 1 to {MOST} samples, a seed from 0 up")
    exact = np.array([share * samples for share in wanted.values()])
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: samples - counts.sum()]] += 1
    each = np.repeat(np.arange(len(counts)), counts)
    names = list(wanted)
    return [names[i] for i in np.random.default_rng(seed).permutation(each)]
