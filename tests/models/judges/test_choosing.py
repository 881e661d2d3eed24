"""Whatever can judge becomes a judge."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.judges import (
    CallableJudge,
    ClassifierJudge,
    ClipJudge,
    TextJudge,
    any_judge,
    callable_judge,
    load_judge,
)
from denoscope.models.judges.choosing import about_judge
from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip, save_tiny_siglip


def light(images, texts):
    return images.mean((1, 2, 3))[:, None].expand(-1, len(texts))


def test_a_folder_says_itself_which_judge_it_is(tmp_path):
    for save, kind in (
        (save_tiny_clip, ClipJudge),
        (save_tiny_siglip, ClipJudge),
        (save_tiny_classifier, ClassifierJudge),
    ):
        assert type(any_judge(str(save(tmp_path / save.__name__)))) is kind


def test_an_embedded_name_is_its_judge_and_a_judge_stays_as_it_is():
    judge = any_judge("emoji")
    assert judge is load_judge("emoji") is any_judge(judge) and isinstance(judge, TextJudge)
    assert len(about_judge(judge)["weights"]) == 64


def test_a_function_is_a_judge_by_its_own_name():
    judge = any_judge(light)
    assert isinstance(judge, CallableJudge) and about_judge(judge) == {"name": "light", "kind": "a function"}
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(judge.similarity(images, ("a", "b")), light(images, ["a", "b"]))
    assert callable_judge(light, "by light").about["name"] == "by light"


def test_the_embedded_judge_as_a_function_says_the_same():
    judge, images = load_judge("emoji"), torch.rand(2, 3, 64, 64)
    again = callable_judge(judge.similarity)
    assert torch.equal(again.similarity(images, ["a dog"]), judge.similarity(images, ["a dog"]))


def test_anything_else_is_told():
    with pytest.raises(TypeError, match="the judge is 3; give a folder or hub id, clip_judge"):
        any_judge(3)
    with pytest.raises(TypeError, match="function is 3"):
        callable_judge(3)
    with pytest.raises(LookupError, match="there is no judge 'emojis'"):
        any_judge("emojis")
    assert about_judge(object()) == {"name": "object"}
