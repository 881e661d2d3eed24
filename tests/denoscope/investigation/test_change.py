"""The edit of an investigation."""

from __future__ import annotations

from dataclasses import replace

import pytest

import denoscope
from denoscope.analysis import Mediation
from denoscope.analysis.scores import read_store
from denoscope.editing.requests import TEMPLATES
from denoscope.investigation.case import prepare
from denoscope.investigation.folder import STAGE
from denoscope.investigation.stages.change import EDITS, MANY, edit_worded, make_edit
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


@pytest.mark.parametrize("method", ["quickfix", "uce", "locoedit"])
def test_every_method_edits_what_was_found(method, case, finished):
    setup = prepare(replace(case, method=method))
    text, denoiser = (
        Mediation(read_store(finished / "results.zarr" / name, STAGE)[0]) for name in ("text", "denoiser")
    )
    edit = make_edit(setup, text, denoiser)
    assert edit.note["method"] == method
    names = list(edit.deltas)
    if method == "quickfix":
        assert all(name.startswith("text_encoder.") for name in names)
    else:
        assert all(name.startswith("unet.") for name in names)
    if method == "locoedit":  # the keys and values of one block
        assert len(names) == 2 and names[0].rsplit(".", 2)[0] == names[1].rsplit(".", 2)[0]


def test_every_method_has_its_sentence():
    assert set(HOW) == set(EDITS) - {"quickfix"}


def test_what_a_method_cannot_do_is_told(case, finished):
    found = (Mediation(read_store(finished / "results.zarr" / n, STAGE)[0]) for n in ("text", "denoiser"))
    with pytest.raises(
        ValueError, match="no change is left"
    ):  # 32 tokens of "" are more directions than the text has
        make_edit(prepare(replace(case, method="nullspace")), *found)


def test_the_page_says_how_it_was_edited(case, tmp_path):
    denoscope.investigate(replace(case, method="uce", change_to="cook"), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "so that they read “cat” as “cook”" in page and "weight matrices were edited" in page
    assert "Diff-QuickFix" not in page


def test_an_unknown_method_is_told_before_any_work(case, tmp_path):
    with pytest.raises(NotFoundError, match="did you mean 'uce'"):
        denoscope.investigate(replace(case, method="uces"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
