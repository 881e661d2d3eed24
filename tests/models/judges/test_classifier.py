"""Image classifiers as judges: their labels, and which of them a text names."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from denoscope.models.judges import classifier_judge
from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip

LABELS = ("tabby, tabby cat", "cat", "dog, hound", "police van", "van", "apple pie")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("judges") / "vit", LABELS)


@pytest.fixture(scope="module")
def judge(folder):
    return classifier_judge(folder)


@pytest.fixture
def images():
    return torch.rand(5, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def test_it_says_what_transformers_says(judge, folder, images):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(pixel_values=judge.preparation(images, torch.zeros(1))).logits.softmax(1)
    torch.testing.assert_close(judge.probabilities(images), wanted)
    assert judge.labels("label") == LABELS
    assert torch.equal(judge.probability(images, "label", "cat"), judge.probabilities(images, "label")[:, 1])
    torch.testing.assert_close(judge.similarity(images, ["a hound", "one Cat"]), wanted[:, [2, 1]])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a photo of a tabby cat", "tabby, tabby cat"),
        ("a cat, painted", "cat"),
        ("a HOUND", "dog, hound"),
        ("the police van", "police van"),
        ("a van", "van"),
        ("tabby, tabby cat", "tabby, tabby cat"),
    ],
)
def test_a_text_names_the_longest_label_in_it(judge, text, label):
    assert judge.label_of(text) == label


def test_a_text_that_names_none_or_several_is_told(judge, images):
    with pytest.raises(LookupError, match="has no label for 'a caravan'; did you mean 'van'"):
        judge.similarity(images, ["a cat", "a caravan"])
    with pytest.raises(LookupError, match="has no label for 'a dogg'"):
        judge.check(["a cat", "a dogg"])
    with pytest.raises(
        ValueError, match=r"'a cat in a van' names 2 labels .*\(cat, van\); it says one thing"
    ):
        judge.check(["a cat in a van"])
    with pytest.raises(ValueError, match="texts is empty"):
        judge.similarity(images, [])
    with pytest.raises(LookupError, match="no attribute 'labels'; did you mean 'label'"):
        judge.probabilities(images, "labels")


def test_batches_and_gradients(judge, images, monkeypatch):
    whole = judge.probabilities(images)
    monkeypatch.setattr("denoscope.models.judges.preparing.BATCH", 2)
    torch.testing.assert_close(judge.probabilities(images), whole)
    x = images.clone().requires_grad_()
    judge.probability(x, "label", "van").sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    with pytest.raises(ValueError, match="no pictures to judge"):
        judge.probabilities(images[:0])


def test_labels_that_do_not_exclude_each_other_are_sigmoids(tmp_path, images):
    folder = save_tiny_classifier(tmp_path / "vit", LABELS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    several, one = (
        classifier_judge(f).probabilities(images) for f in (folder, save_tiny_classifier(tmp_path))
    )
    assert (several.sum(1) > 1.5).all() and several.shape[1] == 6 and one.shape[1] == 3


def test_provenance_names_and_first_names(judge, folder):
    assert judge.about["kind"] == "ViTForImageClassification" and judge.about["name"] == str(folder)
    assert len(judge.about["weights"]) == 64 and "6 labels" in repr(judge)
    assert judge.names == ["tabby", "cat", "dog", "police van", "van", "apple pie"]


def test_other_networks_are_named(tmp_path):
    clip = save_tiny_clip(tmp_path / "clip")
    with pytest.raises(
        ValueError, match="is a CLIPModel; classifier_judge takes classes that end in ForImage"
    ):
        classifier_judge(clip)
