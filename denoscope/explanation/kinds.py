"""The kinds of maps that an explanation holds: what each is, and what it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_MAP = "information"
"""The kind that is shown first: conditional information, weighed as errors of v."""


@dataclass(frozen=True)
class Kind:
    """One kind of map.

    Args:
        title: a few words.
        unit: of its values.
        signed: whether 0 has a meaning and values may lie below it.
        says: what it is and is not, in a sentence.
    """

    title: str
    unit: str
    signed: bool
    says: str


KINDS: Mapping[str, Kind] = {
    "information": Kind(
        "Information",
        "weighed nats",
        True,
        "Where the model foretells this picture better because it read the word, all others known; blue, "
        "where it misleads. Of noisy levels, in context: not what the word would do elsewhere.",
    ),
    "attention": Kind(
        "Attention",
        "share of attention",
        False,
        "Where the word is read, averaged over layers and heads; not what it causes.",
    ),
    "concept": Kind(
        "Concept",
        "share",
        False,
        "Where the model sees what the word names, read by itself as if asked about; not whether the "
        "prompt's word put it there.",
    ),
    "gradient": Kind(
        "Gradient",
        "length of the gradient",
        False,
        "Which places of the noised picture decide how far the word moves the prediction: sensitivity, not "
        "the place that is moved.",
    ),
}

PARTS: Mapping[str, Kind] = {
    "redundancy": Kind(
        "Redundancy",
        "weighed nats",
        True,
        "Where both words tell the same: the smaller information of the two, cell by cell; not that one "
        "could be left out.",
    ),
    "unique 1": Kind(
        "Only the first",
        "weighed nats",
        True,
        "Where the first word tells more than the second does; not what it does without company.",
    ),
    "unique 2": Kind(
        "Only the second",
        "weighed nats",
        True,
        "Where the second word tells more than the first does; not what it does without company.",
    ),
    "synergy": Kind(
        "Synergy",
        "weighed nats",
        True,
        "Where the two tell more together than the better one alone; blue: less, as where they quarrel.",
    ),
}
