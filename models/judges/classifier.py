"""Judges that are image classifiers of transformers: which of its labels a picture shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..errors import NotFoundError, UsageError
from ..store.fingerprint import network_hash
from ..suggest import near
from .labelled import Labelled
from .opening import CLASSIFIER, architecture, folder_of, read_frozen
from .preparing import Preparation, in_batches, read_preparation

LABEL = "label"
"""The one attribute of an image classifier."""


@dataclass(frozen=True, eq=False)
class ClassifierJudge(Labelled):
    """Says which of a classifier's labels pictures show.

    Pictures are ``[sample, 3, height, width]`` in 0..1, of any size; everything is differentiable in them.

    Args:
        name: folder or hub id.
        network: of a class ``...ForImageClassification``, frozen.
        preparation: how it wants its pictures.
        vocabulary: ``{"label": ...}``, its labels.
    """

    name: str
    network: nn.Module
    preparation: Preparation
    vocabulary: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        labels = len(self.vocabulary[LABEL])
        return f"ClassifierJudge({self.name!r}, {type(self.network).__name__}, {labels} labels)"

    @cached_property
    def about(self) -> dict[str, str]:
        """For provenance: its name, its class, a hash of its weights."""
        kind, weights = type(self.network).__name__, network_hash(self.network.state_dict())
        return {"name": self.name, "kind": kind, "weights": weights}

    @checked
    def probabilities(self, images: Tensor, attribute: str = LABEL) -> Tensor:
        """Probability of each label, ``[sample, label]``: softmax; sigmoids where the network was so trained.

        Raises:
            LookupError: for another attribute than ``"label"``.
            ValueError: for pictures of another shape.
        """
        self.labels(attribute)
        network: Any = self.network
        like = next(network.parameters())
        found = [network(pixel_values=self.preparation(x, like)).logits for x in in_batches(images)]
        logits = torch.cat(found).float()
        several = network.config.problem_type == "multi_label_classification"
        return logits.sigmoid() if several else logits.softmax(-1)

    @checked
    def similarity(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Probability of the label that each text names, ``[sample, text]``.

        Raises:
            LookupError: for a text that names no label.
            ValueError: for a text that names several.
        """
        if not texts:
            raise UsageError("texts is empty; give at least one")
        places = [self.vocabulary[LABEL].index(self.label_of(text)) for text in texts]
        return self.probabilities(images)[:, places]

    @checked
    def check(self, texts: Sequence[str]) -> None:
        """Raise an error for a text that does not name exactly one label, as ``similarity`` does."""
        for text in texts:
            self.label_of(text)

    @checked
    def label_of(self, text: str) -> str:
        """Return the label that a text names, whole or by one of its synonyms ("tabby, tabby cat").

        Of names within each other the longest counts: "tabby cat" is no "cat".

        Raises:
            LookupError: if it names none.
            ValueError: if it names several.
        """
        named = list(self._named(text.lower()))
        found = {
            label: None
            for a, b, label in named
            if not any(c <= a and b <= d and d - c > b - a for c, d, _ in named)
        }
        if not found:
            last = text.split()[-1] if text.split() else text
            raise NotFoundError(
                f"the judge {self.name!r} has no label for {text!r}; {near(last, self.vocabulary[LABEL])}"
            )
        if len(found) > 1:
            raise UsageError(
                f"{text!r} names {len(found)} labels of the judge {self.name!r} ({', '.join(found)}); it "
                "says one thing of a picture, so name one"
            )
        return next(iter(found))

    def _named(self, text: str) -> Iterator[tuple[int, int, str]]:
        """The labels in a text, each with where its name begins and ends."""
        for name, label in self._names.items():
            for match in re.finditer(rf"\b{re.escape(name)}\b", text) if name in text else ():
                yield match.start(), match.end(), label

    @property
    def names(self) -> list[str]:
        """One name of each label, its first."""
        return list(dict.fromkeys(label.split(",")[0].strip() for label in self.vocabulary[LABEL]))

    @cached_property
    def _names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for label in self.vocabulary[LABEL]:
            for name in (label, *label.split(",")):
                if name.strip():
                    names.setdefault(name.strip().lower(), label)
        return names


@checked
def classifier_judge(
    source: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> ClassifierJudge:
    """Open an image classifier as a judge: its labels are the vocabulary of the attribute ``"label"``.

    Args:
        source: a folder in transformers' format (network, ``preprocessor_config.json``), or a hub id. Weights
            are safetensors; no code of the checkpoint is run.
        device: where it computes.
        dtype: number format of its weights; what it says is float32 always.

    Raises:
        LookupError: if there is no such folder.
        ValueError: for other networks, damaged or pickled weights, processors that do something else than
            resize, crop and normalise, and for a hub that cannot be reached.

    Example::

        judge = classifier_judge("google/vit-base-patch16-224")
        judge.probability(pictures, "label", "tabby, tabby cat")  # [sample]
    """
    folder, name = folder_of(source), str(source)
    failed, kind = f"could not open the judge {name!r}", architecture(folder)
    if not kind.endswith(CLASSIFIER):
        raise UsageError(
            f"{failed}: it is a {kind or 'network of no known class'}; classifier_judge takes classes that "
            f"end in {CLASSIFIER}, clip_judge CLIP and SigLIP"
        )
    preparation = read_preparation(folder, failed)
    network = read_frozen(folder, name, device, dtype)
    labels = tuple(str(network.config.id2label[i]) for i in range(network.config.num_labels))
    return ClassifierJudge(name, network, preparation, {LABEL: labels})
