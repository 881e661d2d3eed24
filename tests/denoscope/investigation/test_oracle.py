"""The unedited model is asked outright before anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import denoscope
from denoscope.investigation import investigate as loop
from denoscope.investigation.case import Case, prepare
from denoscope.investigation.pieces import in_pieces
from denoscope.investigation.stages import oracle as stage
from denoscope.report.asked import cannot_paint, tell_asked, tell_pieces, tell_refusal


class Judge:
    """Sees in every picture one and the same word, whatever it was painted for."""

    def __init__(self, *sees):
        self.sees, self.asked = sees, []

    def similarity(self, images, texts):
        self.asked.append(list(texts))
        return torch.tensor([[float(t.split()[-1] in self.sees) for t in texts]] * len(images))

    def clip_score(self, images, texts):
        return images.mean((1, 2, 3))


def silent(*_):
    pass


@pytest.fixture
def setup(case):
    """The tiny case, as if its world had six things and a judge."""
    made = prepare(case)
    words = replace(made.wording, peers=("cat", "dog", "cook", "red"))
    return lambda *sees: replace(made, judge=Judge(*sees), wording=words)


def test_both_words_are_painted_with_the_seeds_of_the_case_four_at_most(setup):
    found = stage.oracle(setup("cat", "dog"), silent)
    assert found["word"].values.tolist() == ["cat", "dog"] and found["seed"].values.tolist() == [0, 1]
    assert found["pictures"].shape == (4, 16, 16, 3)
    many = setup("cat")
    many = replace(many, case=replace(many.case, seeds=6, steps=1))
    assert stage.oracle(many, silent).sizes["seed"] == stage.PICTURES


def test_a_picture_shows_its_word_if_it_fits_best_of_all_of_the_kind(setup):
    found = stage.oracle(setup("cat"), silent)
    assert found["shown"].sel(word="cat").values.tolist() == [1, 1]
    assert found["shown"].sel(word="dog").values.tolist() == [0, 0]
    assert cannot_paint(found) == ["dog"]
    [told] = tell_asked(found)
    assert told.text == "Asked outright for “dog”, the unedited model painted it in none of 2 pictures."
    asked = setup("dog")
    stage.oracle(asked, silent)
    assert asked.judge.asked[0] == ["a red cat", "a red dog", "a red cook", "a red red"]


def test_near_words_are_those_that_it_paints(setup):
    near = json.loads(stage.oracle(setup("cat", "cook"), silent).attrs["near"])
    assert near == {"dog": ["cook"]}
    assert json.loads(stage.oracle(setup("cat"), silent).attrs["near"]) == {"dog": []}


def test_nobody_says_no_without_a_judge(case):
    found = stage.oracle(prepare(case), silent)
    assert found["shown"].isnull().all() and cannot_paint(found) == []


def test_a_word_in_pieces_is_not_believed_and_is_told(setup):
    odd = setup("cat", "dinosaur")
    odd = replace(odd, case=replace(odd.case, change_to="dinosaur"))
    found = stage.oracle(odd, silent)
    assert cannot_paint(found) == ["dinosaur"]
    said = tell_refusal(found, "here.png")
    [told] = tell_asked(found)
    assert told.weak and told.text.startswith("The text encoder knows “dinosaur” only in pieces (")
    assert "'dinosaur', the unedited model does not paint it (here.png): the text encoder" in said
    assert "knows “dinosaur” only in pieces (" in said and "--anyway" in said


def test_pieces_are_told_for_each_encoder(tiny):
    found = in_pieces(tiny, "a red zebra", "red zebra")
    assert list(found) == ["text_encoder"] and list(found["text_encoder"]) == ["zebra"]
    assert "".join(found["text_encoder"]["zebra"]) == "zebra" and in_pieces(tiny, "a red cat", "cat") == {}
    assert tell_pieces({"a": {"x": ["y", "z"]}, "b": {"x": ["x1", "x2"]}}).count("only in pieces") == 2


def test_what_cannot_be_painted_stops_at_once_with_its_pictures_and_anyway_goes_on(
    case, setup, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "prepare", lambda _: setup("cat"))
    monkeypatch.setattr(loop, "look", None)  # nothing else is begun
    with pytest.raises(ValueError, match=r"'dog', the unedited model does not paint it .*oracle\.png"):
        denoscope.investigate(case, tmp_path / "run")
    with Image.open(tmp_path / "run" / "oracle.png") as sheet:
        assert sheet.size[0] == sheet.size[1]  # two words by two seeds
    monkeypatch.undo()
    monkeypatch.setattr(loop, "prepare", lambda _: setup("cat"))
    assert denoscope.investigate(case, tmp_path / "run", anyway=True).page.is_file()


@pytest.mark.stress
def test_the_embedded_model_paints_a_cook_and_no_dinosaur(tmp_path):
    case = Case("a noto emoji of a dog", "dog", "cat", steps=8)
    assert cannot_paint(stage.oracle(prepare(case), silent)) == []
    with pytest.raises(ValueError, match=r"'dinosaur'.*only in pieces.*it can paint '"):
        denoscope.investigate(replace(case, change_to="dinosaur"), tmp_path / "run")


def test_an_edit_is_asked_what_it_is_about():
    from denoscope.investigation.single import asked_of

    def edit(**note):
        return SimpleNamespace(note=note)

    one = edit(requests={"cat": "dog"})
    assert asked_of(one, None, None) == ("cat", "dog") == asked_of(one, "Cat".lower(), None)
    assert asked_of(one, "cat:2", "dog") == ("cat:2", "dog")
    two = edit(parts=[{"requests": {"cat": "dog"}}, {"requests": {"red": "cook"}}])
    assert asked_of(two, "red", None) == ("red", "cook")
    with pytest.raises(ValueError, match=r"cat -> dog; red -> cook.*name --about"):
        asked_of(two, None, None)
    by_hand = edit(method="by hand")
    assert asked_of(by_hand, "cat", "dog") == ("cat", "dog")
    with pytest.raises(ValueError, match="it does not say"):
        asked_of(by_hand, None, None)
