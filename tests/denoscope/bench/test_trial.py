"""One edit: made, timed, applied for a while."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from denoscope.bench import Plan
from denoscope.bench.methods import Method
from denoscope.bench.trial import attempt
from denoscope.editing import quickfix
from denoscope.models.errors import NotFoundError

pytestmark = pytest.mark.stress  # each is long; make stress


@pytest.fixture(scope="module")
def plan(tiny, concepts, judge):
    return Plan.of(tiny, concepts=concepts, judge=judge, seeds=1, steps=1)


def late(model, requests, weights):
    """Told which layers, and takes a while to be told."""
    assert weights == ["somewhere"]
    return quickfix(model, requests)


def test_looking_for_layers_is_no_part_of_an_edits_seconds(plan):
    def layers(*_):
        time.sleep(2)
        return ["somewhere"]

    with ExitStack() as stack:
        about = attempt(stack, plan, Method("late", late, where="found"), {"cat": "dog"}, layers)
    assert about["reason"] is None and about["seconds"] < 2
    assert about["weights"] == 256 and 0 < about["share"] < 0.1


def test_an_edit_is_applied_as_long_as_the_stack_lasts(plan, tiny):
    name = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
    before = tiny.parameter(name).detach().clone()
    with ExitStack() as stack:
        attempt(stack, plan, Method("quickfix", quickfix), {"cat": "dog"}, list)
        assert not tiny.parameter(name).detach().equal(before)
    assert tiny.parameter(name).detach().equal(before)


def test_what_is_refused_is_told_in_one_line(plan):
    def nowhere(*_):
        raise NotFoundError("there are\nno layers")

    with ExitStack() as stack:
        about = attempt(stack, plan, Method("late", late, where="found"), {"cat": "dog"}, nowhere)
    assert about["reason"] == "there are no layers"
