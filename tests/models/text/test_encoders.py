"""Texts cut into tokens: what is read, what would be lost, and which characters a token stands for."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from denoscope.models.text.encoders import Reading, chosen, chunks_needed, clip, joined, read, read_chunks
from denoscope.models.text.prompt import Words
from tests.models.families.test_families import opened


@pytest.fixture(scope="module")
def tokenizer():
    return opened("sd").pipe.tokenizer


def spelled(words):
    return [words.text[a:b] for a, b in words.spans if b > a]


def test_a_text_may_be_as_long_as_the_encoder_reads(tokenizer):
    full = read(tokenizer, ["cat " * 30], 32, "m")
    assert full.mask.sum() == 32 and full.ids.shape == (1, 32)
    with pytest.raises(ValueError, match="has 33 tokens, m reads 32: 'cat' would be cut off"):
        read(tokenizer, ["cat " * 30 + "cat"], 32, "m")
    with pytest.raises(
        ValueError, match="with what stands before it, the prompt 'cat' has 4 tokens, m reads 3"
    ):
        read(tokenizer, ["cat"], 3, "m", before="red ")


def test_without_an_end_token_what_stands_beyond_the_limit_is_lost():
    tokenizer = opened("sana").pipe.tokenizer
    ids = tokenizer("a red cat and a dog").input_ids
    assert ids[-1] not in tokenizer.all_special_ids
    with pytest.raises(ValueError, match=f"{tokenizer.decode(ids[-2:])!r} would be cut off"):
        read(tokenizer, ["a red cat and a dog"], len(ids) - 2, "m")


def test_what_is_cut_off_on_purpose_is_told(tokenizer):
    with pytest.warns(UserWarning, match=r"of m reads 4 tokens; 'dog' is cut off there"):
        some = read(tokenizer, ["a cat dog", "red"], 4, "m", cut=True)
    assert some.ids.shape == (2, 4) and some.mask.tolist() == [[1] * 4, [1] * 3 + [0]]
    assert [spelled(w) for w in some.words] == [["a", "cat"], ["red"]]


def test_spans_are_those_of_the_text_as_it_was_written(tokenizer):
    plain, lower = (
        read(tokenizer, [text], 8, "m", lower=low)
        for text, low in (("a red dog", False), ("  A Red DOG ", True))
    )
    assert torch.equal(plain.ids, lower.ids)
    assert lower.words[0].spans[:5] == ((0, 0), (2, 3), (4, 7), (8, 11), (0, 0))
    after = read(tokenizer, ["red dog"], 8, "m", before="a cat ")
    assert after.words[0].spans[:6] == ((0, 0), (0, 0), (0, 0), (0, 3), (4, 7), (0, 0))


def test_the_side_of_the_padding(tokenizer):
    left, right = (read(tokenizer, ["cat"], 5, "m", side=side) for side in ("left", "right"))
    assert left.mask.tolist() == [[0, 0, 1, 1, 1]] and right.mask.tolist() == [[1, 1, 1, 0, 0]]
    assert spelled(left.words[0]) == ["cat"] and left.words[0].end == 4


def test_as_many_chunks_as_the_longest_text_takes(tokenizer):
    assert [chunks_needed(tokenizer, ["", "cat " * n]) for n in (1, 30, 31, 60, 61)] == [1, 1, 2, 2, 3]
    encoded = opened("sd").encode(["a"], long_prompts=2)
    assert chunks_needed(tokenizer, ["cat", *encoded]) == chunks_needed(tokenizer, [*encoded, "cat"]) == 2
    assert chunks_needed(tokenizer, [*encoded, "cat " * 61]) == 3


def test_every_chunk_begins_ends_and_is_filled_up(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(5)  # Stable Diffusion 2 has one of its own
    first, second = read_chunks(tokenizer, ["cat " * 29 + "dog red", "dog"], 2, "m")
    assert first.ids.shape == second.ids.shape == (2, 32)
    for chunk in (first, second):
        assert (chunk.ids[:, 0] == tokenizer.bos_token_id).all()
        for ids, mask, words in zip(chunk.ids, chunk.mask, chunk.words, strict=True):
            n = int(mask.sum())
            assert ids[n - 1] == tokenizer.eos_token_id and not mask[n:].any()
            assert (ids[n:] == tokenizer.pad_token_id).all()
            assert words.tokens == tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
            assert len(words.spans) == 32
    assert [spelled(c.words[0]) for c in (first, second)] == [["cat"] * 29 + ["dog"], ["red"]]
    assert [c.mask.sum(1).tolist() for c in (first, second)] == [[32, 3], [3, 2]]
    with pytest.raises(ValueError, match="has 61 tokens, 2 chunks of m hold 60"):
        read_chunks(tokenizer, ["cat " * 61], 2, "m")


def test_words_of_some_tokens_and_of_several_readings():
    words = Words("a cat", ("<s>", "a", "cat"), ((0, 0), (0, 1), (2, 5)))
    some = chosen(words, [2, 0])
    assert (some.text, some.tokens, some.spans) == ("a cat", ("cat", "<s>"), ((2, 5), (0, 0)))
    both = joined("a cat", [some, words])
    assert both.tokens == ("cat", "<s>", "<s>", "a", "cat") and both.find("cat") == [0, 4]


@pytest.mark.parametrize(("config", "told"), [({"use_attention_mask": True}, True), ({}, False)])
def test_a_tower_is_told_the_mask_only_if_it_takes_one(config, told):
    def encoder(ids, **given):
        return ids, given

    encoder.config = SimpleNamespace(**config)
    ids, mask = torch.tensor([[1, 2]]), torch.tensor([[1, 0]])
    found, given = clip(encoder, Reading(ids, mask, ()), torch.device("cpu"), hidden=True)
    assert torch.equal(found, ids) and given["output_hidden_states"] is True
    assert (given["attention_mask"] is None) != told
    if told:
        assert torch.equal(given["attention_mask"], mask)
    assert clip(encoder, Reading(ids, mask, ()), torch.device("cpu"))[1]["output_hidden_states"] is False
