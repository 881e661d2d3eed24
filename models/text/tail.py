"""The upper layers of a text encoder alone, for texts whose lower layers were computed once.

What is tried out in one layer changes neither the layers below it nor the other text encoders. The layers
themselves are called, with the arguments that the encoder gave them, so hooks at their sites act here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import StateError, UsageError
from ..places.hooks import before_calls
from ..places.mode import evaluating
from ..site import Site
from .prompt import Words


@dataclass(frozen=True, eq=False)
class Tail:
    """Some layers of a text encoder in a row, up to the last that the denoiser reads.

    Args:
        encoder: whose they are.
        first: number of the first.
        words: the texts, as this encoder cuts them up.
        start: what the first of the layers was given, [text, token, channel].
        layers: the layers.
        given: what each was given beside the states, by place and by name.
        norm: of the last states, where all layers are read.
        projection: of the end token, where the encoder has one and all layers are read.
    """

    encoder: str
    first: int
    words: tuple[Words, ...]
    start: Float[Tensor, "text token channel"]
    layers: tuple[nn.Module, ...]
    given: tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...]
    norm: nn.Module | None
    projection: nn.Module | None

    def states(self) -> Float[Tensor, "text token channel"]:
        """Return the encoder's last states that the denoiser reads; differentiable."""
        x = self.start
        with evaluating(m for layer in self.layers for m in layer.modules()):
            for layer, (args, kwargs) in zip(self.layers, self.given, strict=True):
                out = layer(x, *args, **kwargs)
                x = out[0] if isinstance(out, tuple) else out
        return x if self.norm is None else self.norm(x)

    def pooled(self, states: Float[Tensor, "text token channel"]) -> Float[Tensor, "text pooled"]:
        """Return the state of each text's end token; projected where the encoder has a projection."""
        last = [min(w.end, len(w.tokens) - 1) for w in self.words]
        ends = states[torch.arange(len(last)), torch.tensor(last)]
        return ends if self.projection is None else self.projection(ends)


def tail(model: Adapter, encoder: str, first: int, texts: Sequence[str]) -> Tail:
    """Encode texts once, and keep what the upper layers of one encoder are given.

    Args:
        model: an opened model.
        encoder: its component, "text_encoder_2".
        first: number of the lowest of the layers.
        texts: what is written; one batch.

    Raises:
        LookupError: if the encoder has no such layer.
        ValueError: for texts that are too long, and a layer that the denoiser does not read.
        RuntimeError: if a layer is not called once for all texts.
    """
    n = sum((site.component, site.kind) == (encoder, "resid.post") for site in model.places())
    read = model.layers_read().get(encoder, n)
    if first >= read:
        raise UsageError(f"the denoiser reads nothing of layer {first} of {encoder}, but of 0 to {read - 1}")
    layers = [model.module(f"{encoder}/layer.{i}/resid.post") for i in range(first, read)]
    calls: list[list[tuple[Any, Any, Any]]] = [[] for _ in layers]
    with ExitStack() as stack:
        for layer, seen in zip(layers, calls, strict=True):
            stack.enter_context(before_calls(layer, partial(_note, seen)))
        with torch.no_grad():
            prompts = model.encode(texts)
    if any(len(seen) != 1 for seen in calls):
        counts = ", ".join(str(len(seen)) for seen in calls)
        raise StateError(f"the layers of {encoder} were called {counts} times for one batch, not once each")
    (start, _, _), *_ = (seen[0] for seen in calls)
    whole = read == n
    return Tail(
        encoder,
        first,
        words=tuple(p.of(encoder) for p in prompts),
        start=start,
        layers=tuple(layers),
        given=tuple((args, kwargs) for ((_, args, kwargs),) in calls),
        norm=_module(model, f"{encoder}/out/embeds") if whole else None,
        projection=_module(model, f"{encoder}/out/pooled") if whole else None,
    )


def _note(seen: list[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Keep a call: the states, and what is given beside them; a cache of keys would grow with every call."""
    beside = {k: v for k, v in kwargs.items() if not k.startswith("past_key_value")}
    states = args[0] if args else beside.pop("hidden_states")
    seen.append((states, args[1:], beside))


def _module(model: Adapter, site: str) -> nn.Module | None:
    return model.module(site) if Site(site) in model.places() else None
