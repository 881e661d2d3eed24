"""The evaluation data are what their labels say, unseen where they say so, small, and checked when read."""

import hashlib
import json
import re
import shutil
from collections import Counter

import pytest
import torch

from denoscope.models import zoo
from denoscope.models.judges import load_judge
from denoscope.models.zoo.evaluation_data import FOLDER, EvaluationData
from denoscope.models.zoo.training.data.compose import BACKGROUNDS


@pytest.fixture(scope="module")
def data():
    return zoo.data()


@pytest.fixture(scope="module")
def world():
    return json.loads((zoo.folder("emoji") / "world.json").read_text())


def share(said, wanted):
    return sum(s == w for s, w in zip(said, wanted, strict=True)) / len(wanted)


def said(attribute, pictures):
    judge = load_judge()
    with torch.no_grad():
        answers = judge.probabilities(pictures, attribute).argmax(1)
    return [judge.labels(attribute)[i] for i in answers.tolist()]


def test_all_of_it_is_small_and_names_its_licences():
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    told = (FOLDER / "README.md").read_text()
    assert {label.licence for label in zoo.data().real.labels} == {"Apache-2.0", "CC-BY-4.0", "MIT"}
    for label in zoo.data().real.labels:
        assert re.search(rf"\| [^|]*\b{label.style}\b[^|]*\|[^|]*\| {label.licence} \|", told)


def test_500_real_pictures_that_no_model_has_seen(data, world):
    real = data.real
    assert len(real) == len(real.labels) == 500 and real.pictures.shape == (500, 3, 64, 64)
    assert real.opacity.shape == (500, 64, 64) and 0 <= real.pictures.min() < real.pictures.max() <= 1
    assert torch.equal(real.pictures[:, 0][real.opacity == 0], torch.ones(int((real.opacity == 0).sum())))
    unseen = {tuple(key) for key in world["held_out"]}
    for label in real.labels:
        assert label.concept in world["concepts"]
        assert label.unseen == ("combination" if label.style in world["styles"] else "style")
        if label.unseen == "combination":
            skins = {label.skin, "none" if label.skin == "yellow" else label.skin}
            assert unseen & {(label.concept, label.style, label.gender, skin) for skin in skins}
    assert Counter(label.unseen for label in real.labels)["combination"] == len(unseen) == 181
    assert len({(x.codepoint, x.style) for x in real.labels}) == 500


def test_the_judges_see_in_real_pictures_what_the_labels_say(data):
    known = [i for i, label in enumerate(data.real.labels) if label.unseen == "combination"]
    pictures, labels = data.real.pictures[known], [data.real.labels[i] for i in known]
    assert share(said("concept", pictures), [label.concept for label in labels]) > 0.85
    people = [i for i, label in enumerate(labels) if label.gender != "none"]
    assert share(said("gender", pictures[people]), [labels[i].gender for i in people]) > 0.9


def test_200_scenes_with_each_subject_in_its_mask(data):
    scenes = data.scenes
    assert Counter(scene.kind for scene in scenes) == {"pair": 100, "ground": 50, "count": 50}
    for scene in scenes:
        assert scene.picture.shape == (3, 64, 64) and scene.masks.dtype == torch.bool
        assert scene.masks.shape == (len(scene.subjects), 64, 64) and scene.masks.sum(0).max() == 1
        ground = torch.tensor(BACKGROUNDS.get(scene.ground, (255, 255, 255))) / 255
        near = torch.nn.functional.max_pool2d(scene.masks.any(0)[None].float(), 5, 1, 2)[0] > 0
        rest = (scene.picture - ground.view(3, 1, 1)).abs().amax(0)[~near]  # beside soft edges
        assert not len(rest) or (rest < 0.02).float().mean() > 0.75  # but for shadows and thin lines
        for subject, mask in zip(scene.subjects, scene.masks, strict=True):
            top, left, side = subject.box
            assert mask.sum() > 30 and mask[top : top + side, left : left + side].sum() == mask.sum()
            assert subject.words in scene.caption


def test_the_classifier_knows_what_stands_in_each_place(data):
    parts, wanted = [], []
    for scene in data.scenes:
        for subject in scene.subjects:
            top, left, side = subject.box
            part = scene.picture[None, :, top : top + side, left : left + side]
            parts.append(torch.nn.functional.interpolate(part, (64, 64), mode="bicubic").clamp(0, 1))
            wanted.append(subject.concept)
    assert share(said("concept", torch.cat(parts)), wanted) > 0.95


def test_captions_fit_into_the_text_encoder_and_are_counted(data, world):
    captions = data.captions
    assert len(captions.texts) == 2000 and all(captions.texts)
    judge = load_judge()
    assert max(len(judge.tokenizer(text).input_ids) for text in captions.texts) <= 24
    assert captions.counted >= max(captions.words.values()) and captions.counted == 20_000
    own = Counter(w for text in captions.texts for w in set(text.replace(",", "").split()))
    for word in ("emoji", "noto", "woman"):  # the texts are a tenth of what was counted
        assert captions.words[word] / 10 == pytest.approx(own[word], rel=0.15)
    for (first, second), n in captions.pairs.items():
        assert first < second and n <= min(captions.words[first], captions.words[second])
    assert set(captions.genders) <= set(world["people"])
    assert all(sum(shares.values()) == pytest.approx(1, abs=1e-3) for shares in captions.genders.values())


def test_reference_features_are_the_shipped_judges(data):
    reference, judge = data.reference, load_judge()
    weights = (zoo.folder("emoji") / "judge" / "attributes.safetensors").read_bytes()
    assert reference.judge == hashlib.sha256(weights).hexdigest()
    features = judge.features(data.real.pictures[:60]).detach()
    assert reference.features.shape[1] == features.shape[1] and len(reference.features) == 3269
    assert (reference.features.mean(0) - features.mean(0)).abs().mean() < 0.5 * features.std(0).mean()


def test_parts_are_read_when_they_are_used_and_checked(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copy")
    (tmp_path / "copy" / "real.json").unlink()
    file = tmp_path / "copy" / "scenes.webp"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    copy = EvaluationData(tmp_path / "copy")
    assert len(copy.captions.texts) == 2000  # what is whole is read
    with pytest.raises(ValueError, match=r"scenes\.webp' is not what was written; install"):
        _ = copy.scenes
    with pytest.raises(ValueError, match=r"real\.json' is not what was written"):
        _ = copy.real
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        _ = EvaluationData(tmp_path).captions
    assert zoo.data() is zoo.data()
