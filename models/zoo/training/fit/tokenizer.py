"""Train a CLIP tokenizer (byte-pair encoding with end-of-word marks) on the captions."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ..data.captions import caption, clean, subject
from ..data.compose import BACKGROUNDS, random_scene
from ..data.pictures import Pictures

POSITIONS = 24
"""Longest caption in tokens."""
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def corpus(pictures: Pictures, seed: int = 0) -> list[str]:
    """Captions of every picture in several wordings, composed ones, and the tags that Unicode gives."""
    rng = random.Random(seed)
    texts = [caption(r, rng) for r in pictures.records for _ in range(4)]
    texts += [clean(tag) for r in pictures.records for tag in r.tags]
    texts += [subject(r) for r in pictures.records]
    n = len(pictures)
    texts += [random_scene(pictures, rng.randrange(n), rng.randrange(n), rng).caption for _ in range(4000)]
    return texts + [f"on a {colour} background" for colour in BACKGROUNDS] * 50


def train(texts: Iterable[str], folder: Path, size: int = 4096) -> CLIPTokenizer:
    """Learn the merges and save a ``CLIPTokenizer``.

    Args:
        texts: what to learn from.
        folder: where to save it.
        size: how many tokens to learn; single bytes are always among them.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    for token in (*(b + end for b in alphabet for end in ("", "</w>")), _START, _END):
        vocabulary.setdefault(token, len(vocabulary))
    merges: Any = [tuple(m.split(" ") if isinstance(m, str) else m) for m in learned["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=POSITIONS, pad_token=_END)
    tokenizer.save_pretrained(folder)
    return tokenizer
