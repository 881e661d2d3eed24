"""Reading text: tokens that still know their words, and the encoders' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .prompt import Words


@dataclass(frozen=True)
class Reading:
    """Texts as one tokenizer cut them up: ids and mask [text, token], and the words of each text."""

    ids: Tensor
    mask: Tensor
    words: tuple[Words, ...]


def read(tokenizer: Any, texts: Sequence[str], limit: int, name: str, *, lower: bool = False) -> Reading:
    """Cut texts into tokens, padded to ``limit``.

    Args:
        tokenizer: of transformers.
        texts: what was written.
        limit: the number of tokens that the encoder reads.
        name: of the model, for the error message.
        lower: read them stripped and in lower case, as PixArt's pipelines do; spans stay those of the text.

    Raises:
        ValueError: for a text of more tokens, naming what would be cut off.
    """
    shown = [t.strip().lower() for t in texts] if lower else list(texts)
    for text, ids in zip(texts, tokenizer(shown).input_ids, strict=True):
        if len(ids) > limit:
            lost = tokenizer.decode(ids[limit - 1 : -1])
            raise ValueError(
                f"the prompt {text!r} has {len(ids)} tokens, {name} reads {limit}: "
                f"{lost!r} would be cut off; shorten the prompt"
            )
    cut = tokenizer(
        shown,
        padding="max_length",
        max_length=limit,
        return_tensors="pt",
        return_attention_mask=True,
        return_offsets_mapping=True,
    )
    words = tuple(
        Words(text, tuple(tokenizer.convert_ids_to_tokens(ids)), _spans(text, spans.tolist(), lower))
        for text, ids, spans in zip(texts, cut.input_ids, cut.offset_mapping, strict=True)
    )
    return Reading(cut.input_ids, cut.attention_mask, words)


def clip(encoder: Any, reading: Reading, device: torch.device, *, hidden: bool = False) -> Any:
    """Return what a CLIP text tower answers; with ``hidden``, the states after every layer too."""
    mask = reading.mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
    return encoder(reading.ids.to(device), attention_mask=mask, output_hidden_states=hidden)


def joined(text: str, parts: Sequence[Words]) -> Words:
    """Return the words of several readings of one text, whose tokens the denoiser reads one after another."""
    return Words(text, tuple(t for p in parts for t in p.tokens), tuple(s for p in parts for s in p.spans))


def _spans(text: str, spans: Sequence[Sequence[int]], lower: bool) -> tuple[tuple[int, int], ...]:
    shift = len(text) - len(text.lstrip()) if lower else 0
    return tuple((a + shift, b + shift) if b > a else (0, 0) for a, b in spans)
