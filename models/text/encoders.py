"""Reading text: tokens that still know their words, and the encoders' answers."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from .prompt import Prompt, Words


@dataclass(frozen=True)
class Reading:
    """Texts as one tokenizer cut them up: ids and mask [text, token], and the words of each text."""

    ids: Tensor
    mask: Tensor
    words: tuple[Words, ...]


def read(
    tokenizer: Any,
    texts: Sequence[str],
    limit: int,
    name: str,
    *,
    lower: bool = False,
    before: str = "",
    side: str | None = None,
    cut: bool = False,
) -> Reading:
    """Cut texts into tokens, padded to ``limit``.

    Args:
        tokenizer: of transformers.
        texts: what was written.
        limit: the number of tokens that the encoder reads.
        name: of the model, for the error message.
        lower: read them stripped and in lower case, as PixArt's pipelines do; spans stay those of the text.
        before: what is read before each text; its tokens stand for no characters of the text.
        side: where padding goes, "right" or "left"; None is what the tokenizer says.
        cut: cut longer texts off, with a warning, as the pipelines do; for encoders beside one that reads on.

    Raises:
        ValueError: for a text of more tokens, naming what would be cut off; not with ``cut``.
    """
    written = [_written_out(tokenizer, text) for text in texts]
    shown = [before + (t.strip().lower() if lower else t) for t, _ in written]
    for text, ids in zip(texts, tokenizer(shown, verbose=False).input_ids, strict=True):
        if len(ids) > limit:
            ended = ids[-1] in tokenizer.all_special_ids  # the end token is always read
            lost = tokenizer.decode(ids[limit - 1 : -1] if ended else ids[limit:])
            if cut:
                reader = f"{type(tokenizer).__name__} of {name}"
                warnings.warn(f"{reader} reads {limit} tokens; {lost!r} is cut off there", stacklevel=3)
                continue
            first = "with what stands before it, " if before else ""
            raise UsageError(
                f"{first}the prompt {text!r} has {len(ids)} tokens, {name} reads {limit}: "
                f"{lost!r} would be cut off; shorten the prompt"
            )
    encoded = tokenizer(
        shown,
        truncation=cut,
        padding="max_length",
        max_length=limit,
        padding_side=side,
        return_tensors="pt",
        return_attention_mask=True,
        return_offsets_mapping=True,
    )
    shifts = [len(t) - len(t.lstrip()) if lower else 0 for t, _ in written]
    words = tuple(
        _words(tokenizer, text, ids.tolist(), _spans(places, spans.tolist(), len(before), shift))
        for text, (_, places), ids, spans, shift in zip(
            texts, written, encoded.input_ids, encoded.offset_mapping, shifts, strict=True
        )
    )
    return Reading(encoded.input_ids, encoded.attention_mask, words)


def chunks_needed(tokenizer: Any, prompts: Iterable[str | Prompt]) -> int:
    """Return how many chunks the longest of some texts takes; encoded ones have what they have."""
    limit, most = tokenizer.model_max_length, 1
    for prompt in prompts:
        if isinstance(prompt, Prompt):
            most = max(most, len(prompt.embeds) // limit)
        else:
            written, _ = _written_out(tokenizer, prompt)
            tokens = tokenizer(written, add_special_tokens=False, verbose=False).input_ids
            most = max(most, math.ceil(len(tokens) / (limit - 2)))
    return most


def read_chunks(tokenizer: Any, texts: Sequence[str], n: int, name: str) -> list[Reading]:
    """Cut texts into so many chunks, each with a beginning, an end and padding of its own.

    Raises:
        ValueError: for a text of more chunks.
    """
    room = tokenizer.model_max_length - 2
    chunks: list[list[tuple[list[int], list[int], Words]]] = [[] for _ in range(n)]
    for text in texts:
        written, places = _written_out(tokenizer, text)
        cut = tokenizer(written, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        if len(cut.input_ids) > n * room:
            raise UsageError(
                f"the prompt {text!r} has {len(cut.input_ids)} tokens, {n} chunks of {name} hold {n * room}"
            )
        spans = _spans(places, cut.offset_mapping, 0, 0)
        for i, chunk in enumerate(chunks):
            part = slice(i * room, (i + 1) * room)
            chunk.append(_chunk(tokenizer, text, cut.input_ids[part], spans[part]))
    return [
        Reading(
            torch.tensor([c[0] for c in chunk]),
            torch.tensor([c[1] for c in chunk]),
            tuple(c[2] for c in chunk),
        )
        for chunk in chunks
    ]


def _chunk(
    tokenizer: Any, text: str, own: Sequence[int], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int], Words]:
    """Ids, mask and words of one chunk."""
    empty = tokenizer.model_max_length - 2 - len(own)
    ids = [tokenizer.bos_token_id, *own, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * empty]
    known = ((0, 0), *spans, *[(0, 0)] * (1 + empty))
    return ids, [1] * (len(own) + 2) + [0] * empty, _words(tokenizer, text, ids, known)


def clip(encoder: Any, reading: Reading, device: torch.device, *, hidden: bool = False) -> Any:
    """Return what a CLIP text tower answers; with ``hidden``, the states after every layer too."""
    mask = reading.mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
    return encoder(reading.ids.to(device), attention_mask=mask, output_hidden_states=hidden)


def chosen(words: Words, positions: Sequence[int]) -> Words:
    """Return the words of some tokens alone, in the order given."""
    return Words(
        words.text,
        tuple(words.tokens[i] for i in positions),
        tuple(words.spans[i] for i in positions),
        tuple(new for new, old in enumerate(positions) if old in words.unknown),
    )


def joined(text: str, parts: Sequence[Words]) -> Words:
    """Return the words of several readings of one text, whose tokens the denoiser reads one after another."""
    first = [0, *itertools.accumulate(len(p.tokens) for p in parts)]
    return Words(
        text,
        tuple(t for p in parts for t in p.tokens),
        tuple(s for p in parts for s in p.spans),
        tuple(start + i for start, p in zip(first, parts, strict=False) for i in p.unknown),
    )


def _words(tokenizer: Any, text: str, ids: Sequence[int], spans: tuple[tuple[int, int], ...]) -> Words:
    """Put a text's tokens together, and say which stand for characters that the tokenizer does not know."""
    tokens = tuple(tokenizer.convert_ids_to_tokens(list(ids)))
    name, number = tokenizer.unk_token, tokenizer.unk_token_id  # CLIP's is that of the end of the text
    lost = [
        span
        for i, span in zip(ids, spans, strict=True)
        if i == number and span[1] > span[0] and text[slice(*span)].strip().lower() != name.lower()
    ]
    # the mark of a word's beginning ("\u2581") may share the span of the unknown word
    unknown = (i for i, (a, b) in enumerate(spans) if any(a < d and c < b for c, d in lost))
    return Words(text, tokens, spans, tuple(unknown))


def _written_out(tokenizer: Any, text: str) -> tuple[str, list[tuple[int, int]]]:
    """Write out learned words of several vectors ("<toy>" to "<toy> <toy>_1"), as diffusers' pipelines do.

    Returns the longer text, and for each of its characters what it stands for in the text.
    """
    known = tokenizer.added_tokens_encoder
    places = [(i, i + 1) for i in range(len(text))]
    for token in sorted(set(tokenizer.tokenize(text, verbose=False)) & set(known)):
        more = itertools.takewhile(known.__contains__, (f"{token}_{i}" for i in itertools.count(1)))
        extra = "".join(f" {part}" for part in more)
        for found in reversed(list(re.finditer(re.escape(token), text)) if extra else []):
            first, last = found.span()
            whole = (places[first][0], places[last - 1][1])
            text = text[:last] + extra + text[last:]
            places[last:last] = [whole] * len(extra)
    return text, places


def _spans(
    places: Sequence[tuple[int, int]], spans: Sequence[Sequence[int]], start: int, stripped: int
) -> tuple[tuple[int, int], ...]:
    shift = stripped - start
    own = ((max(a, start), b) for a, b in spans)  # a token may reach from what stands before into the text
    return tuple((places[a + shift][0], places[b + shift - 1][1]) if b > a else (0, 0) for a, b in own)
