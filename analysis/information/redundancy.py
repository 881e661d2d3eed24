"""What two words say alike: rules that split their information, each a choice of which word it follows.

Two sources, one target: R + U1 = I1, R + U2 = I2, R + U1 + U2 + S = I12 (Williams & Beer 2010,
arXiv:1004.2515). Three equations leave one number free; a rule sets R, and all the rest follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ...models.errors import NotFoundError, UsageError
from ...models.suggest import near

Redundancy: TypeAlias = Literal["min", "i_min", "finn_lizier"]
RULES: tuple[Redundancy, ...] = ("min", "i_min", "finn_lizier")
PARTS = ("redundancy", "unique 1", "unique 2", "synergy", "total", "information 1", "information 2")


def followed(i1: Tensor, i2: Tensor, surprisals: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return which information the redundancy is, 0 or 1, and what is added to it.

    Without surprisals it is the smaller of the two. With ``h = -log p(word)``, Finn & Lizier 2018
    (arXiv:1801.09010): ``min(h1, h2) - min(h1 - I1, h2 - I2)``, which is the information of the word that is
    less surprising once the picture is seen, and a constant where the other one is the commoner word.
    """
    if surprisals is None:
        return (i2 < i1).long(), torch.zeros_like(i1)
    h1, h2 = surprisals
    second = (h2 - i2 < h1 - i1).long()
    return second, min(h1, h2) - torch.where(second.bool(), h2, h1)


def parts(i1: Tensor, i2: Tensor, i12: Tensor, surprisals: tuple[float, float] | None) -> Tensor:
    """Return ``PARTS`` of informations of any shape, on a new last axis."""
    second, added = followed(i1, i2, surprisals)
    r = torch.where(second.bool(), i2, i1) + added
    return torch.stack([r, i1 - r, i2 - r, i12 - i1 - i2 + r, i12, i1, i2], -1)


def mixture(second: int) -> Tensor:
    """How ``PARTS`` are mixed of I1, I2 and I12 [part, 3], up to a constant: what standard errors need."""
    i1, i2, i12 = torch.eye(3, dtype=torch.float64)
    r = (i1, i2)[second]
    return torch.stack([r, i1 - r, i2 - r, i12 - i1 - i2 + r, i12, i1, i2])


def checked_priors(
    rule: Redundancy, log_prior: Mapping[str, float] | None, words: Sequence[str]
) -> dict[str, float]:
    """Return the surprisal of each word in nats; empty if the rule needs none.

    Raises:
        ValueError: for another rule, priors that are missing or have nothing to say, and such as are no
            logarithm of a probability.
        LookupError: for a word without a prior.
    """
    if rule not in RULES:
        raise UsageError(f"redundancy is {rule!r}; it is {', '.join(map(repr, RULES))}")
    if rule != "finn_lizier":
        if log_prior is not None:
            raise UsageError(f"log_prior says nothing to redundancy {rule!r}; leave it out, or 'finn_lizier'")
        return {}
    if log_prior is None:
        raise UsageError(
            "'finn_lizier' weighs what is known of words before: give log_prior, log p(word) in nats of "
            f"{', '.join(words)}"
        )
    for word in words:
        if word not in log_prior:
            raise NotFoundError(f"log_prior has no {word!r}; {near(word, log_prior)}")
        if not (math.isfinite(log_prior[word]) and log_prior[word] <= 0):
            raise UsageError(
                f"log_prior of {word!r} is {log_prior[word]}; it is log p, 0 or less, and finite"
            )
    return {word: -float(log_prior[word]) for word in words}
