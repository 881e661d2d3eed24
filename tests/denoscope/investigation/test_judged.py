"""A user's own checkpoint with a judge of its own: the page shows efficacy and specificity."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from denoscope.analysis.metrics import Outcome, measure
from denoscope.analysis.scores import load_store
from denoscope.investigation.case import judgeable, prepare
from denoscope.investigation.investigate import investigate
from denoscope.investigation.single import locate
from denoscope.models.judges import any_judge, classifier_judge, clip_judge
from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip

LABELS = ("cat", "dog, hound", "oak tree", "old boat", "green pear", "white duck", "house cat")


def silent(*_):
    pass


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("judges") / "clip")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("judges") / "vit", LABELS)


@pytest.fixture(scope="module")
def small(case):
    return replace(case, seeds=1, steps=1)


@pytest.fixture(scope="module")
def judged(small, clip, tmp_path_factory):
    """The folder of an investigation with a CLIP judge."""
    path = tmp_path_factory.mktemp("judged") / "run"
    investigate(replace(small, judge=str(clip)), path, anyway=True)
    return path


def test_the_page_shows_efficacy_and_specificity_and_who_said_it(judged, clip):
    page = (judged / "report.html").read_text()
    said = re.sub(r"\s+", " ", page)
    assert re.search(
        r"With the edited prompt, \d of 1 pictures fit “dog” better than any other candidate", said
    )
    assert re.search(r"Of 4 pictures of other things, \d still fit their own word best", said)
    assert f"Judged by {clip} (CLIPModel)." in said and "No judge ships" not in said
    assert "candidate (cat, dog, " in said and "CLIP score with the text that should be shown" in said
    assert {"shown", "fit"} <= set(re.findall(r'data-figure="([^"]+)"', page))


def test_the_judge_and_its_weights_are_in_the_provenance(judged, clip):
    whole, about = json.loads((judged / "run.json").read_text()), clip_judge(clip).about
    assert whole["settings"]["judge"] == whole["about"]["judge"] == about
    effect = load_store(judged / "results.zarr" / "effect")
    assert effect.attrs["judge"] == about and effect.attrs["judged"] == 1
    assert about["weights"] in (judged / "report.html").read_text()


def test_what_it_says_is_what_the_judge_says_of_these_pictures(judged, clip):
    """Of the pictures as they are kept, rounded to 8 bits."""
    effect = load_store(judged / "results.zarr" / "effect")
    after = torch.from_numpy(effect["after"].values).permute(0, 3, 1, 2) / 255
    texts = [f"a red {c}" for c in effect["candidate"].values]
    wanted = clip_judge(clip).similarity(after[:1], texts)[0]
    own = torch.from_numpy(effect["fit"].sel(state="after").values[0, 0])
    torch.testing.assert_close(own, wanted, atol=0.02, rtol=0)
    assert float(effect["fit"].std()) > 0.02  # it could be otherwise


def test_the_oracle_asks_among_usual_things(judged):
    asked = load_store(judged / "results.zarr" / "oracle")
    assert asked.attrs["judged"] == 1 and asked["shown"].notnull().all()


def test_the_same_folder_takes_no_other_judge(judged, small, vit):
    with pytest.raises(FileExistsError, match="holds another run"):
        investigate(replace(small, judge=str(vit)), judged)
    with pytest.raises(FileExistsError, match="holds another run"):
        investigate(small, judged)


def test_without_a_judge_the_settings_are_as_before(small):
    assert "judge" not in prepare(small).settings


def test_a_classifier_is_asked_about_things_that_it_knows(small, vit):
    setup = prepare(replace(small, judge=vit))
    assert set(setup.wording.neighbourhood) == {"oak tree", "old boat", "green pear", "white duck"}
    assert setup.wording.generality and not set(setup.wording.keep) & {f"a red {w}" for w in LABELS}
    assert setup.metric.__name__ == "text_fit(own prompt)"


def test_any_judge_may_stand_in_a_case(small, clip):
    def light(images, texts):
        return images.mean((1, 2, 3))[:, None].expand(-1, len(texts))

    for judge in (light, clip_judge(clip), "emoji"):
        setup = prepare(replace(small, judge=judge))
        assert setup.judge is any_judge(judge) or setup.judge.name.endswith("light")
        assert setup.settings["judge"] == setup.judge.about and json.dumps(setup.settings)
    assert prepare(replace(small, judge="emoji")).metric.__name__ == "clip_score(own prompt)"
    with pytest.raises(TypeError, match="the judge is 3; give a folder"):
        prepare(replace(small, judge=3))


def test_words_that_a_judge_cannot_read_are_told_and_other_texts_left_out(small, vit, tmp_path):
    with pytest.raises(LookupError, match="no label for 'a red cook'"):
        prepare(replace(small, change_to="cook", judge=vit))
    with pytest.raises(LookupError, match="no label for 'a red cook'"):
        locate(replace(small, prompt="a red cook", about="cook", judge=vit), None, silent)
    words = prepare(small).wording
    short = clip_judge(save_tiny_clip(tmp_path / "short", length=8))  # "a red boat" fits just
    kept = judgeable(short, words)
    assert kept.generality == () and kept.efficacy == words.efficacy
    assert list(kept.neighbourhood) == ["boat"] and kept.peers == ("car", "tree", "boat", "bird")
    assert judgeable(None, words) is words
    with pytest.raises(ValueError, match=r"reads 8 tokens, and 'a red unicorn' has 10"):
        prepare(replace(small, change_to="unicorn", judge=short))


def test_the_metric_of_a_classifier_is_the_probability_of_the_prompts_label(small, vit):
    setup, pictures = prepare(replace(small, judge=vit)), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        prompts = tuple(setup.model.encode(["a red cat"])) * 2
    said = measure(setup.metric, Outcome(pictures, prompts, lambda x: x))
    assert torch.equal(said, classifier_judge(vit).probability(pictures, "label", "cat"))
