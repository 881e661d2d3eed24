"""The edit of an investigation."""

from __future__ import annotations

from dataclasses import replace

import pytest

import denoscope
from denoscope.editing.requests import TEMPLATES
from denoscope.investigation.stages.change import EDITS, MANY, edit_worded
from denoscope.investigation.wording import Wording
from denoscope.models.errors import NotFoundError
from denoscope.report.sections.change import HOW

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


def test_every_method_has_its_sentence():
    assert set(HOW) == set(EDITS) - {"quickfix"}


def test_the_page_says_how_it_was_edited(case, tmp_path):
    denoscope.investigate(replace(case, method="uce", change_to="cook"), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "so that they read “cat” as “cook”" in page and "weight matrices were edited" in page
    assert "Diff-QuickFix" not in page


def test_an_unknown_method_is_told_before_any_work(case, tmp_path):
    with pytest.raises(NotFoundError, match="did you mean 'uce'"):
        denoscope.investigate(replace(case, method="uces"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
