"""The judges answer in the promised shapes, know what they do not know, and are better than chance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from denoscope.models import zoo
from denoscope.models.judges import load_judge

REAL = Path(__file__).parent / "real"


@pytest.fixture(scope="module")
def judge():
    return load_judge("emoji")


@pytest.fixture(scope="module")
def real():
    """A few real pictures and their captions: ``style_concept_gender_skin.png``."""
    paths = sorted(REAL.glob("*.png"))
    pictures = torch.stack([torch.from_numpy(np.array(Image.open(p).convert("RGB"))) for p in paths])
    return pictures.permute(0, 3, 1, 2).float() / 255, [path.stem.split("_") for path in paths]


def test_shapes_and_ranges(judge):
    images = torch.rand(3, 3, 64, 64)
    assert judge.similarity(images, ["a dog", "a red heart"]).shape == (3, 2)
    assert judge.features(images).ndim == 2
    for attribute in ("style", "concept", "gender", "skin"):
        probabilities = judge.probabilities(images, attribute)
        assert probabilities.shape == (3, len(judge.labels(attribute)))
        assert torch.allclose(probabilities.sum(1), torch.ones(3), atol=1e-5)
    label = judge.labels("style")[1]
    assert torch.equal(judge.probability(images, "style", label), judge.probabilities(images, "style")[:, 1])


def test_clip_score_is_the_diagonal_of_similarity(judge):
    images, texts = torch.rand(2, 3, 64, 64), ["a dog", "a flat emoji of a cook"]
    assert torch.allclose(
        judge.clip_score(images, texts), judge.similarity(images, texts).diagonal(), atol=1e-6
    )
    assert judge.similarity(images, texts).abs().max() <= 1 + 1e-5


def test_pictures_are_compared_with_pictures_by_what_they_show(judge, real):
    pictures, names = real
    alike = judge.similarity(pictures, pictures)
    assert alike.shape == (len(names), len(names))
    assert torch.allclose(alike.diagonal(), torch.ones(len(names)), atol=1e-5)
    assert torch.allclose(alike, alike.T, atol=1e-6)
    darker = judge.similarity(pictures, 0.93 * pictures)  # still shows the same thing
    assert torch.equal(darker.argmax(1), torch.arange(len(names))) and darker.diagonal().min() > 0.9
    embedded = judge._embed_images(pictures)
    assert torch.allclose(judge.similarity(pictures[:2], pictures[2:]), embedded[:2] @ embedded[2:].T)
    with pytest.raises(ValueError, match=r"got \[3, 64, 64\]"):
        judge.similarity(pictures, pictures[0])


def test_other_sizes_are_resized(judge, real):
    small = real[0][:4]
    large = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    alike = torch.cosine_similarity(judge.features(small), judge.features(large))
    assert alike.min() > 0.95
    with pytest.raises(ValueError, match=r"\[3, 64, 64\]"):
        judge.features(small[0])


def test_gradients_reach_the_picture(judge):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    (judge.clip_score(images, ["a dog"]) + judge.probability(images, "gender", "woman")).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_unknown_names_are_errors_with_near_misses(judge):
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(LookupError, match="did you mean 'gender'"):
        judge.probabilities(images, "gendre")
    with pytest.raises(LookupError, match="did you mean 'firefighter'"):
        judge.probability(images, "concept", "fire fighter")
    with pytest.raises(ValueError, match=r"got pictures \[1, 3, 64, 64\] and 2 texts"):
        judge.clip_score(images, ["a", "b"])
    with pytest.raises(LookupError, match="emoji"):
        load_judge("emojis")


def test_judge_is_loaded_once_and_frozen(judge):
    assert load_judge("emoji") is judge
    assert not any(p.requires_grad for p in judge.classifier.parameters())
    assert zoo.folder("emoji").is_dir()


@pytest.mark.parametrize(("place", "attribute"), list(enumerate(("style", "concept", "gender", "skin"))))
def test_real_pictures_are_known_far_better_than_chance(judge, real, place, attribute):
    pictures, names = real
    asked = [i for i, name in enumerate(names) if name[place] != "none"]
    labels = judge.labels(attribute)
    answers = judge.probabilities(pictures[asked], attribute).argmax(1).tolist()
    right = sum(labels[a] == names[i][place] for a, i in zip(answers, asked, strict=True)) / len(asked)
    assert right >= max(0.5, 2 / len(labels))


def test_captions_of_real_pictures_fit_best(judge, real):
    pictures, names = real
    texts = [
        f"a {style} emoji of a {'' if gender == 'none' else gender + ' '}{concept}"
        for style, concept, gender, _ in names
    ]
    cosines = judge.similarity(pictures, texts)
    assert (cosines.argmax(1) == torch.arange(len(texts))).float().mean() >= 0.6
