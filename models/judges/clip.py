"""Judges of transformers' CLIP and SigLIP: how well a picture fits a text, zero-shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..arguments import checked
from ..errors import UsageError
from ..store.fingerprint import network_hash
from .labelled import Labelled
from .opening import TWO_TOWERS, architecture, folder_of, read_frozen, read_tokenizer
from .preparing import Preparation, in_batches, read_preparation


@dataclass(frozen=True, eq=False)
class ClipJudge(Labelled):
    """Says how well pictures fit texts: a CLIP (Radford et al. 2021) or SigLIP (Zhai et al. 2023).

    Pictures are ``[sample, 3, height, width]`` in 0..1, of any size; everything is differentiable in them.

    Args:
        name: folder or hub id.
        network: CLIPModel or SiglipModel, frozen.
        tokenizer: its tokenizer.
        preparation: how it wants its pictures.
        vocabulary: for each attribute the texts that ``probabilities`` chooses from.
    """

    name: str
    network: nn.Module
    tokenizer: Any
    preparation: Preparation
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _read: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        return f"ClipJudge({self.name!r}, {type(self.network).__name__})"

    @cached_property
    def about(self) -> dict[str, str]:
        """For provenance: its name, its class, a hash of its weights."""
        kind, weights = type(self.network).__name__, network_hash(self.network.state_dict())
        return {"name": self.name, "kind": kind, "weights": weights}

    @checked
    def similarity(self, images: Tensor, others: Sequence[str] | Tensor) -> Tensor:
        """Cosine of every picture with every text, or with every other picture, ``[sample, other]``.

        Raises:
            ValueError: for pictures of another shape, for no texts, and for texts that would be cut off.
        """
        seen = self._embed_images(images)
        read = self._embed_images(others) if isinstance(others, Tensor) else self._embed_texts(others)
        return seen @ read.T

    @checked
    def features(self, images: Tensor) -> Tensor:
        """Embedding of each picture, of length 1, ``[sample, feature]``: for distances of sets."""
        return self._embed_images(images)

    @checked
    def clip_score(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosine of picture i with text i, ``[sample]``.

        Raises:
            ValueError: for another number of texts, and as ``similarity``.
        """
        if not images.ndim or len(images) != len(texts):
            raise UsageError(
                f"give one text for each picture: got pictures {list(images.shape)} and {len(texts)} texts"
            )
        return (self._embed_images(images) * self._embed_texts(texts)).sum(-1)

    @checked
    def probabilities(self, images: Tensor, attribute: str) -> Tensor:
        """Probability of each of an attribute's texts, ``[sample, label]``.

        The question is which of these texts a picture fits, so it is a softmax over them, with the network's
        own scale: CLIP's zero-shot. For SigLIP too: its sigmoids say of each text alone whether it fits,
        need not sum to one, and are near 0 for all short texts; its bias cancels here.

        Raises:
            LookupError: for an attribute that was not given.
        """
        network: Any = self.network
        scale: Tensor = network.logit_scale.float().exp()
        return (scale * self.similarity(images, self.labels(attribute))).softmax(-1)

    @checked
    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for a text that would be cut off, and for an empty list."""
        if not texts:
            raise UsageError("texts is empty; give at least one")
        room = self._room
        for text, ids in zip(texts, self.tokenizer(list(texts), verbose=False).input_ids, strict=True):
            if len(ids) > room:
                raise UsageError(
                    f"the judge {self.name!r} reads {room} tokens, and {text!r} has {len(ids)}, of which the "
                    "last would be cut off; shorten it"
                )

    @property
    def _room(self) -> int:
        config: Any = self.network.config
        return min(int(self.tokenizer.model_max_length), int(config.text_config.max_position_embeddings))

    def _embed_images(self, images: Tensor) -> Tensor:
        network: Any = self.network
        found = []
        for some in in_batches(images):
            x = self.preparation(some, network.logit_scale)
            found.append(network.get_image_features(pixel_values=x).pooler_output)
        return F.normalize(torch.cat(found).float(), dim=-1)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Directions of texts, [text, channel]; each text is read once."""
        self.check(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._read]
        if new:
            with torch.inference_mode(False), torch.no_grad():  # what is kept must do under autograd too
                self._read.update(zip(new, F.normalize(self._encode(new).float(), dim=-1), strict=True))
        device = next(self.network.parameters()).device
        return torch.stack([self._read[text] for text in texts]).to(device)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        network: Any = self.network
        read = self.tokenizer(list(texts), padding="max_length", max_length=self._room, return_tensors="pt")
        # SigLIP was trained without a mask: its padding is read
        names = ("input_ids", "attention_mask") if network.config.model_type == "clip" else ("input_ids",)
        given = {name: read[name].to(network.logit_scale.device) for name in names}
        pooled: Tensor = network.get_text_features(**given).pooler_output
        return pooled


@checked
def clip_judge(
    source: str | Path,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ClipJudge:
    """Open a CLIP or SigLIP as a judge.

    Args:
        source: a folder in transformers' format (network, tokenizer, ``preprocessor_config.json``), or a hub
            id. Weights are safetensors; no code of the checkpoint is run.
        vocabulary: for each attribute the texts to choose from, for ``probability``; not needed to compare
            pictures with texts.
        device: where it computes.
        dtype: number format of its weights; what it says is float32 always.

    Raises:
        LookupError: if there is no such folder.
        ValueError: for other networks, damaged or pickled weights, processors that do something else than
            resize, crop and normalise, and for a hub that cannot be reached.

    Example::

        judge = clip_judge("openai/clip-vit-base-patch32", {"animal": ["a cat", "a dog"]})
        judge.similarity(pictures, ["a red cat", "a blue cat"])  # cosines, [sample, 2]
        judge.probability(pictures, "animal", "a dog")  # [sample]
    """
    folder, name = folder_of(source), str(source)
    failed, kind = f"could not open the judge {name!r}", architecture(folder)
    if kind not in TWO_TOWERS.values():
        raise UsageError(
            f"{failed}: it is a {kind or 'network of no known class'}; clip_judge takes "
            f"{' and '.join(TWO_TOWERS.values())}, classifier_judge image classifiers"
        )
    preparation = read_preparation(folder, failed)
    network = read_frozen(folder, name, device, dtype)
    tokenizer = read_tokenizer(folder, name, network.config.text_config.vocab_size)
    side = network.config.vision_config.image_size
    if preparation.result != (side, side):
        raise UsageError(
            f"{failed}: its pictures are prepared to {preparation.result}, and the network reads "
            f"{(side, side)}; give the processor of this network"
        )
    known = {attribute: tuple(texts) for attribute, texts in (vocabulary or {}).items()}
    judge = ClipJudge(name, network, tokenizer, preparation, known)
    for texts in known.values():
        judge.check(texts)
    return judge
