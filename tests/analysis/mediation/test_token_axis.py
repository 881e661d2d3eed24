"""The token axis: labels, roles, groups, and prompts that do not line up."""

from typing import Any

import numpy as np
import pytest
import torch

from denoscope.analysis.mediation.token_axis import TokenAxis, token_axis
from denoscope.models.text.prompt import Prompt


def prompt(*words: str, length: int = 7) -> Prompt:
    text, spans, at = " ".join(words), [(0, 0)], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    pads = length - len(words) - 1
    tokens = ("<|startoftext|>", *(w + "</w>" for w in words), *["<|endoftext|>"] * pads)
    return Prompt(text, tokens, (*spans, *[(0, 0)] * pads), embeds=torch.zeros(length, 1))


def test_every_token_to_the_end_and_the_padding_as_one() -> None:
    axis = token_axis([prompt("a", "red", "cat")], [[2]])
    assert axis.labels == ("0:start", "1:a", "2:red", "3:cat", "4:end", "5-6:pad")
    assert axis.groups == ((0,), (1,), (2,), (3,), (4,), (5, 6))
    assert axis.roles == ("start", "before", "subject", "after", "end", "pad")


def test_no_padding_no_group() -> None:
    assert token_axis([prompt("a", "red", "cat", length=5)], [[2]]).labels[-1] == "4:end"


def test_words_that_differ_between_prompts() -> None:
    axis = token_axis([prompt("a", "red", "cat"), prompt("a", "red", "dog")], [[3], [3]])
    assert axis.labels[1:4] == ("1:a", "2:red", "3:*")


def test_a_word_is_written_without_its_tokenizers_marks() -> None:
    words = Prompt("cat", ("\u2581cat", "</s>"), ((0, 3), (0, 0)), embeds=torch.zeros(2, 1))
    assert token_axis([words], [[0]]).labels == ("0:cat", "1:end")  # T5 has no token at the start


def test_positions_and_groups_as_given() -> None:
    axis = token_axis([prompt("a", "red", "cat")], [[1, 3]], [3, (0, 2), range(4, 7)])
    assert axis == TokenAxis(
        ((3,), (0, 2), (4, 5, 6)),
        ("3:cat", "0,2:start red", "4-6:end pad"),
        ("subject", "start+between", "end+pad"),
    )


def test_numpy_positions_are_positions() -> None:
    axis = token_axis([prompt("a", "red", "cat")], [[3]], np.array([2, 3]))  # type: ignore[arg-type]
    assert axis.groups == ((2,), (3,))


@pytest.mark.parametrize("tokens", [[7], [-1], [], [[]], [[1, 9]]])
def test_refuses_positions_that_do_not_exist(tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens is .*; it holds positions.* 0 to 6"):
        token_axis([prompt("a", "cat")], [[2]], tokens)


@pytest.mark.parametrize("other", [prompt("a", "big", "cat"), prompt("cat", "a"), prompt("a", "cat", "sits")])
def test_refuses_prompts_that_do_not_line_up(other: Prompt) -> None:
    prompts = [prompt("a", "cat"), other]
    with pytest.raises(ValueError, match="do not line up with 'a cat'.* in calls of their own"):
        token_axis(prompts, [p.find("cat") for p in prompts])
