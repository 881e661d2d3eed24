"""Choices of how text is read, and the layers that may be left out."""

from __future__ import annotations

import pytest

from denoscope.models.text.options import chosen_options, skipped_layer


def reads(texts, clip_skip=None, long_prompts="error"):
    """A reader that leaves both choices."""


def test_only_what_differs_from_the_defaults_is_chosen():
    assert chosen_options(reads, "m", {"clip_skip": None, "long_prompts": "error"}) == {}
    given = {"clip_skip": 0, "long_prompts": 1}
    assert chosen_options(reads, "m", given) == given
    assert chosen_options(reads, "m", {"long_prompts": "chunks"}) == {"long_prompts": "chunks"}
    assert chosen_options(len, "m", {"clip_skip": None}) == {}


@pytest.mark.parametrize("wrong", [1.5, None])
def test_numbers_of_chunks_are_whole(wrong):
    with pytest.raises(
        TypeError, match=f"long_prompts is {wrong}; it is 'error' or 'chunks' or a whole number"
    ):
        chosen_options(reads, "m", {"long_prompts": wrong})


@pytest.mark.parametrize("wrong", [0, -1, "cut"])
def test_numbers_of_chunks_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="it is 'error'.* 'chunks' or a "):
        chosen_options(reads, "m", {"long_prompts": wrong})


def test_choices_that_a_reader_does_not_leave_are_refused():
    with pytest.raises(ValueError, match="clip_skip is 1, but m takes no clip_skip; leave it out"):
        chosen_options(lambda texts: texts, "m", {"clip_skip": 1})
    with pytest.raises(TypeError, match=r"no option \['clip_jump'\] .* \['clip_skip', 'long_prompts'\]"):
        chosen_options(reads, "m", {"clip_jump": 1})


def test_layers_are_left_out_before_the_last_one_that_counts():
    states = "abcd"  # before the first layer, and after each of three
    assert [skipped_layer(states, n, 1) for n in range(4)] == ["d", "c", "b", "a"]
    assert [skipped_layer(states, n, 2) for n in range(3)] == ["c", "b", "a"]
    for wrong, last, most in ((4, 1, 3), (3, 2, 2), (-1, 1, 3), (1.0, 1, 3)):
        with pytest.raises(
            ValueError, match=f"clip_skip is {wrong}; the text encoder can leave out 0 to {most}"
        ):
            skipped_layer(states, wrong, last)
