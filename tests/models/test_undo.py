"""What is to be put back is put back: all of it, newest first, whatever goes wrong meanwhile."""

from __future__ import annotations

import gc
import runpy
from functools import partial

import pytest

from denoscope.models import undo
from denoscope.models.undo import Undo
from tests.interrupting import interrupt, moments


def test_newest_first_and_after_an_error_too():
    done = []
    with pytest.raises(KeyError), Undo() as undo:
        for i in range(3):
            undo.add(partial(done.append, i))
        raise KeyError
    assert done == [2, 1, 0]


def test_what_fails_is_tried_again_and_the_rest_is_put_back():
    done, tries = [], []

    def once():
        tries.append(1)
        if len(tries) == 1:
            raise KeyboardInterrupt
        done.append("late")

    def never():
        raise KeyError("never")

    with pytest.raises(KeyboardInterrupt), Undo() as undo:
        undo.add(partial(done.append, "first"))
        undo.add(once)
    assert done == ["late", "first"]
    with pytest.raises(KeyError, match="never"), Undo() as undo:
        undo.add(partial(done.append, "again"))
        undo.add(never)
    assert done[-1] == "again"


def test_what_is_forgotten_stays():
    done = []
    with Undo() as undo:
        undo.add(partial(done.append, 0))
        undo.forget()
    assert not done


def test_an_interrupt_at_every_moment():
    bare = runpy.run_path(undo.__file__)["Undo"]  # array checks keep what they were interrupted with

    def run(state):
        with bare() as back:
            for name in state:
                back.add(partial(state.update, {name: 0}))
                state.update({name: 1})

    states = [dict.fromkeys("ab", 0) for _ in range(moments(partial(run, dict.fromkeys("ab", 0))))]
    for moment, state in enumerate(states):
        interrupt(partial(run, state), moment)
    gc.collect()  # a block whose end is interrupted before it begins ends when it is forgotten
    assert len(states) > 10 and not [i for i, state in enumerate(states) if any(state.values())]
