"""Who is called: choices that can never act are refused, rows of a batch are told apart."""

from __future__ import annotations

import pytest

from denoscope.models.run.context import TEXT, Call, CallContext, When
from denoscope.models.run.levels import Step
from denoscope.models.text.prompt import Words

FIRST, LATER = Step(0, 900.0, 5.0), Step(3, 500.0, 1.0)
A, B, C = (Words(text, ()) for text in ("a", "b", "c"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"steps": ()}, r"steps is \(\); it holds indices 0, 1"),
        ({"steps": {1, -1}}, "it holds indices 0, 1"),
        ({"branch": ""}, "branch is ''; it is 'cond', 'uncond'"),
    ],
)
def test_choices_that_cannot_be_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        When(**choice)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (When({1, 3}), "reach past the run, which has steps 0 to 2"),
        (When(rows=(0, 2)), "not all among the run's samples 0 to 1"),
        (When(rows=(-1,)), "not all among the run's samples 0 to 1"),
        (When(branch="uncond"), "set guidance above 1"),
        (When(branch="other"), "no branch 'other'; known: cond"),
    ],
)
def test_what_a_run_does_not_have_is_refused(when, message):
    with pytest.raises(ValueError, match=message):
        when.check(3, 2, ["cond"])
    When({0, 2}, "cond", (0, 1)).check(3, 2, ["cond"])
    When(None, None, None).check(3, 2, ["cond"])


def test_a_step_is_in_a_choice_by_its_index():
    assert LATER in When({3}) and 3 in When(range(2, 4)) and FIRST in When()
    assert FIRST not in When({3}) and 4 not in When(range(2, 4))


def test_a_call_reaches_its_own_component_or_all_that_read_text():
    assert Call("unet", {}).reaches("unet") and not Call("unet", {}).reaches("text_encoder")
    assert all(Call(TEXT, {}).reaches(c) for c in ("text_encoder", "text_encoder_2"))
    assert not Call(TEXT, {}).reaches("unet")
    assert Call("unet", {}).n_rows == 0
    assert Call("unet", {"cond": slice(2, 4), "uncond": slice(0, 2)}).n_rows == 4


def test_rows_are_chosen_branch_by_branch_with_what_they_read():
    prompts = {"uncond": (C, C, C), "cond": (A, B, C)}
    call = Call("unet", {"uncond": slice(0, 3), "cond": slice(3, 6)}, (LATER,) * 3, prompts)
    assert list(call.select(When(None, None), "unet")) == [
        ([0, 1, 2], CallContext(LATER, "uncond", (0, 1, 2), (C, C, C), "unet")),
        ([3, 4, 5], CallContext(LATER, "cond", (0, 1, 2), (A, B, C), "unet")),
    ]
    in_order_given = When({3}, "cond", (2, 0))
    assert list(call.select(in_order_given, "unet")) == [
        ([5, 3], CallContext(LATER, "cond", (2, 0), (C, A), "unet"))
    ]
    assert not list(call.select(When({0}, None), "unet"))


def test_rows_at_several_steps_are_told_apart():
    call = Call("unet", {"cond": slice(0, 3)}, (LATER, FIRST, LATER), {"cond": (A, B, C)})
    assert list(call.select(When(), "unet")) == [
        ([0, 2], CallContext(LATER, "cond", (0, 2), (A, C), "unet")),
        ([1], CallContext(FIRST, "cond", (1,), (B,), "unet")),
    ]
    assert [rows for rows, _ in call.select(When({0}), "unet")] == [[1]]
    assert [rows for rows, _ in call.select(When(rows=(2,)), "unet")] == [[2]]


def test_a_batch_may_hold_some_samples_of_the_run_and_have_no_step():
    call = Call(TEXT, {"cond": slice(0, 2)}, prompts={"cond": (A, C)}, samples=(5, 2))
    context = CallContext(None, "cond", (2,), (C,), "text_encoder_2")
    assert list(call.select(When(rows=(1, 2)), "text_encoder_2")) == [([1], context)]
    unread = Call(TEXT, {"cond": slice(0, 2)}, samples=(5, 2))
    assert [c.prompts for _, c in unread.select(When(), "text_encoder")] == [()]


def test_a_context_tells_its_place_in_the_run():
    step, text = (CallContext(s, "cond", (0,), (), "unet") for s in (Step(3, 400.0, 1.0), None))
    assert step.index == 3 and text.index is None
