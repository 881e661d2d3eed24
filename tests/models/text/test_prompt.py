"""Prompts know their words."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.text.prompt import Prompt


@pytest.mark.parametrize(
    ("text", "word", "spelt"),
    [
        ("a red cat", "cat", ["cat</w>"]),
        ("a red cat", "RED", ["red</w>"]),
        ("a red cat", "red cat", ["red</w>", "cat</w>"]),
        ("a zebra", "zebra", ["z", "e", "b", "r", "a</w>"]),
        ("cat and cat", "cat", ["cat</w>", "cat</w>"]),
    ],
)
def test_words_are_found_in_pieces(tiny, text, word, spelt):
    prompt = tiny.encode([text])[0]
    assert [prompt.tokens[i] for i in prompt.find(word)] == spelt


@pytest.mark.parametrize("word", ["ca", "cats", "", " ", "dog"])
def test_a_word_that_is_not_there_is_an_error(tiny, word):
    with pytest.raises(LookupError, match="is not in the prompt 'a red cat'"):
        tiny.encode(["a red cat"])[0].find(word)


def test_near_misses_are_named(tiny):
    with pytest.raises(LookupError, match="did you mean 'dog'"):
        tiny.encode(["a dog"])[0].find("dig")


@given(st.lists(st.sampled_from(["cat", "dog", "red", "zebra", "x"]), min_size=1, max_size=4))
def test_every_word_is_found_and_the_end_follows(tiny, words):
    prompt = tiny.encode([" ".join(words)])[0]
    found = {i for w in words for i in prompt.find(w)}
    assert found == set(range(1, prompt.end)) and prompt.tokens[prompt.end] == "<|endoftext|>"


def test_prompts_over_the_limit_are_refused(tiny):
    with pytest.raises(ValueError, match=r"reads 32: .* cut off"):
        tiny.encode(["cat " * 40])


def test_encoding_a_batch_equals_its_parts(tiny):
    together = tiny.encode(["a cat", "a red dog"])
    for one in together:
        torch.testing.assert_close(tiny.encode([one.text])[0].embeds, one.embeds)


def test_an_empty_prompt_ends_after_the_start(tiny):
    assert tiny.encode([""])[0].end == 1 and isinstance(tiny.encode([""])[0], Prompt)


@pytest.mark.parametrize(
    ("text", "words", "left"),
    [
        ("a red cat", "red", "a cat"),
        ("a Red cat, red dog", "red", "a cat, dog"),
        ("a cat, red, a dog", "red", "a cat, a dog"),
        ("red, a cat", "red", "a cat"),
        ("a cat, red", "red", "a cat"),
        ("a cook with a cookie", "cook", "a with a cookie"),
        ("a red cat", "red cat", "a"),
        ("red", "red", ""),
    ],
)
def test_words_are_left_out_in_their_place(tiny, text, words, left):
    assert tiny.encode([text])[0].without(words) == left


def test_words_that_are_not_there_cannot_be_left_out(tiny):
    with pytest.raises(LookupError, match="did you mean 'dog'"):
        tiny.encode(["a dog"])[0].without("dig")
