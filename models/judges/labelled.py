"""What every judge with attributes can be asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from ..arguments import checked
from ..errors import NotFoundError, UsageError
from ..suggest import near


class Labelled:
    """Attributes by name, each with labels of which a picture shows one."""

    vocabulary: Mapping[str, tuple[str, ...]]

    @abstractmethod
    def probabilities(self, images: Tensor, attribute: str) -> Tensor:
        """Probability of each label of an attribute, ``[sample, label]``."""

    @checked
    def labels(self, attribute: str) -> tuple[str, ...]:
        """What an attribute can be, in the order of ``probabilities``.

        Raises:
            LookupError: for an attribute that the judge does not know.
        """
        if not self.vocabulary:
            raise UsageError(
                f"the judge was given no attributes, so {attribute!r} is unknown to it; name them with the "
                "texts to choose from: clip_judge(name, {'animal': ['a cat', 'a dog']})"
            )
        if attribute not in self.vocabulary:
            raise NotFoundError(
                f"the judge knows no attribute {attribute!r}; {near(attribute, self.vocabulary)}"
            )
        return self.vocabulary[attribute]

    @checked
    def probability(self, images: Tensor, attribute: str, label: str) -> Tensor:
        """Probability of one label, ``[sample]``.

        Raises:
            LookupError: for an attribute or label that the judge does not know.
        """
        which = position(self, attribute, label)  # first, for it costs nothing
        return self.probabilities(images, attribute)[:, which]


def position(judge: Labelled, attribute: str, label: str) -> int:
    """Return where a label stands among those of its attribute.

    Raises:
        LookupError: for an attribute or label that the judge does not know.
    """
    labels = judge.labels(attribute)
    if label not in labels:
        raise NotFoundError(f"{attribute} is never {label!r}; {near(label, labels)}")
    return labels.index(label)
