"""What a change is for, and how that is said."""

from __future__ import annotations

import pytest

from denoscope.investigation.goal import Goal, goal_of

ASKED = {"model": "emoji", "prompt": "a noto emoji of a cook", "about": "cook", "change_to": "",
         "remove": False, "balance": "", "steer": ""}  # fmt: skip


def asked(**goal):
    return goal_of(**{**ASKED, **goal})


def test_each_goal_is_said_and_asked_outright():
    told = asked(change_to="pilot")
    assert (told.meant, told.asked) == (
        "pilot",
        ("cook", "pilot"),
    ) and told.said == "“cook” is read as “pilot”"
    gone = asked(remove=True)
    assert (gone.meant, gone.asked) == ("", ("cook",)) and gone.said == "no “cook” is painted"
    even = asked(balance="gender=woman,man")
    assert even.asked == ("woman cook", "man cook") and even.said == "cook is woman and man equally often"
    woman = asked(steer="woman", about="cook:1")
    assert woman.values == ("woman", "man", "person") and woman.asked == ("cook", "woman cook")
    assert asked(steer="tall").values == ("tall",) and asked(steer="tall, small").values == ("tall", "small")


@pytest.mark.parametrize(
    ("goal", "rivals", "wanted"),
    [
        ({"change_to": "pilot"}, ("cook", "pilot", "judge"), [False, True, False]),
        ({"remove": True}, ("cook", "judge"), [False, True]),
        ({"balance": "woman,man"}, ("woman cook", "man cook"), [True, False]),
        ({"steer": "tall"}, ("tall cook", "cook"), [True, False]),
    ],
)
def test_a_picture_is_compared_with_what_the_goal_speaks_of(goal, rivals, wanted):
    found = asked(**goal)
    assert found.rivals(("judge",)) == rivals and found.wanted(rivals) == wanted


def test_a_text_without_the_word_has_no_gap():
    goal = Goal("remove", "cook")
    assert goal.written("an emoji of a {}", "") == "an emoji of"
    assert goal.written("{}, flat style", "") == "flat style" and goal.written("{}", "") == ""
    assert goal.written("a {} in red", "cook") == "a cook in red"


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "no other goal; give one of: --change-to WORD, --remove, --balance"),
        ({"change_to": "pilot", "remove": True}, "--change-to WORD and --remove are given"),
        ({"change_to": "Cook"}, "are both 'cook'"),
        ({"balance": "gender"}, "two values.*'gender' is one of man, woman, person"),
        ({"balance": "woman"}, "two values that go before the word"),
        ({"balance": "woman,man,person"}, "two values"),
        ({"balance": "woman,woman"}, "two values"),
        ({"steer": ","}, "the value that is wanted"),
        ({"steer": "woman", "prompt": "a woman cook"}, "says 'woman' already"),
    ],
)
def test_what_makes_no_goal_is_told(goal, message):
    with pytest.raises(ValueError, match=message):
        asked(**goal)
