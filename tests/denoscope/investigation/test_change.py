"""The edit of an investigation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from denoscope.editing.requests import TEMPLATES
from denoscope.investigation.stages.change import MANY, edit_worded
from denoscope.investigation.wording import Wording

WORDS = Wording("cat", "dog", ("a red {}",), (), {}, ("a cook",) * MANY, templates=("a big {}",))


def test_it_is_worded_and_kept_as_the_wording_has_it(tiny):
    note = edit_worded(tiny, WORDS).note
    assert note["templates"] == ["a red {}", "a big {}", *TEMPLATES]
    assert note["keep"] == ["", *WORDS.keep] and note["requests"] == {"cat": "dog"}


def test_many_kept_texts_hold_the_layer_so_the_ridge_need_not(tiny):
    few = replace(WORDS, keep=WORDS.keep[1:])
    scaled, usual = (next(iter(edit_worded(tiny, w).note["ridge"].values())) for w in (WORDS, few))
    assert scaled == pytest.approx(usual / 10)
    own = edit_worded(tiny, WORDS, keep=[*WORDS.keep])
    assert next(iter(own.note["ridge"].values())) == pytest.approx(usual)
