"""Random, tiny text encoders and their tokenizers, of transformers' real classes."""

from __future__ import annotations

from typing import Any

from transformers import (
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def tiny_tokenizer(length: int = 32) -> CLIPTokenizer:
    """Return a CLIP tokenizer of single characters and a few whole words."""
    words = ("cat", "dog", "red", "emoji", "cook")
    chars = [chr(c) for c in range(33, 127)]
    merges, pieces = [], []
    for word in words:
        left = word[0]
        for i, char in enumerate(word[1:], 1):
            right = char + ("</w>" if i == len(word) - 1 else "")
            if (left, right) not in merges:
                merges.append((left, right))
                pieces.append(left + right)
            left += right
    names = list(dict.fromkeys([*chars, *(c + "</w>" for c in chars), *pieces, *SPECIAL]))
    given: Any = merges  # pairs, whatever the annotation says
    return CLIPTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=given, model_max_length=length)


def tiny_clip(tokenizer: CLIPTokenizer, layers: int = 2, projection: int | None = None) -> Any:
    """Return a random CLIP text tower of 16 channels, with a projection if its size is given."""
    end = tokenizer.eos_token_id
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
        projection_dim=projection or 16,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer of single characters and a few whole words."""
    words = ("\u2581cat", "\u2581dog", "\u2581red", "\u2581emoji", "\u2581cook")
    chars = ("\u2581", *(chr(c) for c in range(33, 127)))
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [*special, *((w, -1.0) for w in words), *((c, -5.0) for c in chars)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, additional_special_tokens=[], model_max_length=512)


def tiny_t5(tokenizer: T5Tokenizer, channels: int = 16) -> T5EncoderModel:
    """Return a random T5 encoder of two layers."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=channels,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def tiny_gemma_tokenizer() -> GemmaTokenizer:
    """Return a Gemma tokenizer of single characters, line breaks and a few whole words; no end token."""
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\u2581")
    chars = [chr(c) for c in range(33, 127)]
    merges, pieces = [], []
    for word in ("cat", "dog", "red", "emoji", "cook"):
        for i in range(1, len(word)):
            merges.append((word[:i], word[i]))
            pieces.append(word[: i + 1])
        merges.append(("\u2581", word))
        pieces.append("\u2581" + word)
    names = dict.fromkeys([*special, *chars, *pieces])
    given: Any = merges  # pairs, whatever the annotation says
    return GemmaTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=given, add_bos_token=True)


def tiny_gemma(tokenizer: GemmaTokenizer) -> Gemma2Model:
    """Return a random Gemma 2 of two layers and 16 channels."""
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
    )
    return Gemma2Model(config)


def tiny_bert_tokenizer() -> BertTokenizer:
    """Return a BERT tokenizer of single letters and a few whole words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red", "emoji", "cook"]
    chars = [chr(c) for c in range(97, 123)]
    vocabulary = dict.fromkeys([*words, *chars, *(f"##{c}" for c in chars)])
    return BertTokenizer(vocab={w: i for i, w in enumerate(vocabulary)}, model_max_length=77)
