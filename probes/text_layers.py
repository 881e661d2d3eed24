"""Which linear layers of a denoiser read the text and nothing else, found by looking: no list of families.

Three rows go through the network in one call: the same text beside two noises at two times, and another text.
A layer whose input is the same in the first two and another in the third is told the text alone. Their keys
are exact for every picture, so closed forms may edit them. Layers that read the same share a space:

- ``tokens``: the text as the denoiser is given it, ``unet/in/text``;
- ``pooled``: the one vector beside it, ``unet/in/pooled``, perhaps in the first columns of a wider input;
- ``into ...``: the tokens as a layer of the denoiser's own projection gives them on (PixArt, Sana), named by
  the first layer that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.base import Model
from ..models.errors import StateError, UsageError
from ..models.places.hooks import before_calls
from ..models.places.refuse import uncompiled
from ..models.text.prompt import Prompt, Words
from .text_states import TEXT_BATCH, TokenStates, encoded

TOKENS, POOLED = "tokens", "pooled"
_TEXTS = ("a cat", "two dogs")
_SAME = 1e-5
"""Relative difference of inputs that count as the same: rows of one batch may differ by rounding."""


@dataclass(frozen=True, eq=False)
class TextLayer:
    """A linear layer of the denoiser that reads text alone.

    Args:
        weight: full name of its weight, ``unet.down_blocks.0...attn2.to_v.weight``.
        module: the layer.
        space: what it reads; layers of one space have the same inputs.
        columns: how many of its inputs are the text, from the first on; sizes of the picture may follow.
    """

    weight: str
    module: nn.Linear
    space: str
    columns: int


def text_layers(model: Model) -> list[TextLayer]:
    """Return the linear layers of the denoiser that read the text alone, in the order in which they run.

    Costs one call of the network with three rows at the smallest picture size.

    Raises:
        ValueError: for a model that reads no text, or whose denoiser carries LoRAs beside its weights.
    """
    _check(model)
    part, small = model.input_site.component, smallest(model)
    text, other = small.encode(_TEXTS)
    names = {m: n for n, m in model.components[part].named_modules() if isinstance(m, nn.Linear)}
    found, read = dict[str, TextLayer](), dict[str, Tensor]()
    steps = small.steps(4)
    noise = small.noise([0, 1, 0])
    with torch.no_grad(), uncompiled(model), ExitStack() as stack:
        for module, name in names.items():
            look = partial(_look, found, read, f"{part}.{name}.weight", module, text)
            stack.enter_context(before_calls(module, look))
        small.denoise(noise, [steps[0], steps[-1], steps[0]], [text, text, other])
    return list(found.values())


def text_inputs(model: Model, layer: TextLayer, texts: Sequence[str]) -> dict[str, list[TokenStates]]:
    """Return what a layer is given for each text, on the CPU: states of tokens, tokenizer by tokenizer.

    Tokens that the denoiser may not look at (masked padding) are left out.

    Raises:
        ValueError: for texts that are too long.
    """
    prompts = encoded(model, texts)
    if layer.space == POOLED:
        return {
            text: [TokenStates(Words(text, ("",)), _pooled(p)[None].cpu())] for text, p in prompts.items()
        }
    own = layer.space == TOKENS
    values = (p.embeds for p in prompts.values()) if own else _projected(model, layer.module, prompts)
    return {t: segments_of(p, x.detach().cpu()) for (t, p), x in zip(prompts.items(), values, strict=True)}


def _look(  # noqa: PLR0917  # bound by partial
    found: dict[str, TextLayer],
    read: dict[str, Tensor],
    name: str,
    module: nn.Linear,
    prompt: Prompt,
    args: Any,
    kwargs: Any,
) -> None:
    """Keep a layer that is told the text alone, and its input if nobody has read that before."""
    x: Tensor = args[0] if args else kwargs["input"]
    if len(x) != 3 or not _equal(x[0], x[1]) or _equal(x[0], x[2]):
        return
    one, pooled = x[0].detach().clone(), prompt.pooled
    if torch.equal(one, prompt.embeds):
        found[name] = TextLayer(name, module, TOKENS, one.shape[-1])
    elif one.ndim == 2 and len(one) == len(prompt.embeds):
        space = next((s for s, other in read.items() if torch.equal(one, other)), f"into {name}")
        read.setdefault(space, one)
        found[name] = TextLayer(name, module, space, one.shape[-1])
    elif pooled is not None and torch.equal(one[: len(pooled)], pooled):
        found[name] = TextLayer(name, module, POOLED, len(pooled))


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= _SAME * a.abs().max())


class _Stopped(Exception):
    def __init__(self, value: Tensor) -> None:
        self.value = value


def _projected(model: Model, module: nn.Module, prompts: Mapping[str, Prompt]) -> Iterator[Tensor]:
    """What a layer behind the denoiser's own projection is given; the network stops there."""
    small, every = smallest(model), list(prompts.values())

    def stop(args: Any, _: Any) -> None:
        raise _Stopped(args[0].detach())

    for first in range(0, len(every), TEXT_BATCH):
        some = every[first : first + TEXT_BATCH]
        try:
            with torch.no_grad(), uncompiled(model), before_calls(module, stop):
                small.denoise(small.noise([0] * len(some)), small.steps(1)[0], some)
        except _Stopped as stopped:
            yield from stopped.value
        else:
            raise StateError(f"a layer of {model.name} that reads text did not run; open the model again")


def segments_of(prompt: Prompt, values: Float[Tensor, "token channel"]) -> list[TokenStates]:
    """Return one TokenStates for each tokenizer; in Stable Diffusion 3 their tokens stand in one row."""
    parts, n = [], 0
    for words in prompt.segments:
        own = slice(n, n + len(words.tokens))
        n = own.stop
        seen = range(len(words.tokens)) if prompt.mask is None else prompt.mask[own].nonzero()[:, 0].tolist()
        if any(words.tokens):  # else this encoder is left out, and its states are zeros
            parts.append(TokenStates(_picked(words, list(seen)), values[own][list(seen)]))
    return parts


def _picked(words: Words, tokens: Sequence[int]) -> Words:
    """The same text with some of its tokens alone."""
    if len(tokens) == len(words.tokens):
        return words
    unknown = tuple(i for i, t in enumerate(tokens) if t in words.unknown)
    return Words(
        words.text, tuple(words.tokens[t] for t in tokens), tuple(words.spans[t] for t in tokens), unknown
    )


def _pooled(prompt: Prompt) -> Tensor:
    if prompt.pooled is None:
        raise StateError(f"{prompt.text!r} was encoded without its pooled vector; open the model again")
    return prompt.pooled


def smallest(model: Model) -> Model:
    """Return the model at the smallest size of pictures that it has."""
    return model.sized((model.size_unit, model.size_unit))


def _check(model: Model) -> None:
    if not model.text_encoders:
        raise UsageError(f"{model.name} reads no text, so nothing in it can be edited by words")
    part = model.input_site.component
    for name, module in model.components[part].named_modules():
        if hasattr(module, "base_layer"):
            raise UsageError(
                f"{part}.{name} carries a LoRA beside its weight; merge it first: pipe.fuse_lora(), "
                "pipe.unload_lora_weights(), and open the pipeline again"
            )
        if getattr(module, "fused_projections", False):
            raise StateError(
                f"{part}.{name} computes keys and values by one fused layer; run "
                f"pipe.{part}.unfuse_qkv_projections() first, and fuse again afterwards"
            )
