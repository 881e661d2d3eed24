"""What a bank looks at: latents of pictures, and what the network reads beside each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ..trace import Trace

Texts: TypeAlias = str | Prompt | Sequence[str | Prompt]
AT_ONCE = 16
"""Pictures that are encoded together."""


def latents_of(model: Model, images: Tensor | Trace) -> Float[Tensor, "picture ..."]:
    """Return the clean latents of pictures in 0..1, or those at the end of a run.

    Raises:
        TypeError: for pictures that are no tensor of floating-point numbers.
        ValueError: for pictures, or latents of a run, that are not of this model's shape.
    """
    if isinstance(images, Trace):
        shape = tuple(images.latents.shape[1:])
        if shape != tuple(model.latent_shape):
            raise UsageError(
                f"the run's latents are {shape}, but those of {model.name} are {tuple(model.latent_shape)}; "
                "give a run of this model and size"
            )
        return images.latents.to(model.device, model.dtype)
    if images.ndim and not len(images):
        raise UsageError(f"images are {tuple(images.shape)}, none at all; give at least one picture")
    if images.ndim < 2 or len(images) <= AT_ONCE:
        return model.encode_image(images)
    return torch.cat([model.encode_image(images[some]) for some in batches(len(images), AT_ONCE)])


def read_conditions(model: Model, conditions: Mapping[str, Texts], pictures: int) -> list[list[Prompt]]:
    """Return what the network reads beside each picture; each text is encoded once.

    Raises:
        ValueError: for a number of texts that does not fit, and texts for a model that reads none.
    """
    given = {name: _each(name, texts, pictures) for name, texts in conditions.items()}
    texts = list(dict.fromkeys(t for some in given.values() for t in some if isinstance(t, str)))
    if not model.conditional and any(texts):
        raise UsageError(
            f"{model.name} reads no text, so {next(t for t in texts if t)!r} tells it nothing; "
            "give a model that does"
        )
    known = dict(zip(texts, _read(model, texts), strict=True))
    return [
        [known[t] if isinstance(t, str) else t for t in (some[i] for some in given.values())]
        for i in range(pictures)
    ]


def _read(model: Model, texts: Sequence[str]) -> Iterator[Prompt]:
    """No text is what the unconditional branch reads: zeros in some families."""
    written = iter(model.encode([t for t in texts if t]))
    nothing = model.negative([""]) if "" in texts else []
    return (next(written) if text else nothing[0] for text in texts)


def _each(name: str, texts: Texts, pictures: int) -> list[str | Prompt]:
    given = [texts] if isinstance(texts, str | Prompt) else list(texts)
    if len(given) not in (1, pictures):
        raise UsageError(
            f"condition {name!r} has {len(given)} texts for {pictures} pictures; give one, or one for each"
        )
    return given * pictures if len(given) == 1 else given
