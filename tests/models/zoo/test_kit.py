"""The command that writes the evaluation data, on a few plain pictures."""

import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from denoscope.models import zoo
from denoscope.models.zoo.evaluation_data import EvaluationData
from denoscope.models.zoo.training import __main__ as command
from denoscope.models.zoo.training.data import world
from denoscope.models.zoo.training.data.pictures import Pictures, Record, save_pictures
from denoscope.models.zoo.training.evaluate import kit

sys.path.insert(0, str(Path(__file__).parent))
from planted import COLOURS, disc

CONCEPTS = {"cook": COLOURS["cook"], "fox": COLOURS["fox"], "red square": (226, 92, 84)}


def many() -> Pictures:
    """People in all tones, so that some are held out; things; and both in a style outside the world."""
    records = [
        Record(f"{g} cook", "cook", s, "people-body", gender=g, skin=t, codepoint=f"{g}{t}")
        for s in (*world.STYLES, "blob")
        for g in world.GENDERS
        for t in ("none", *world.TONES)
    ]
    records += [
        Record(name, name, s, "animals-nature", codepoint=name)
        for name in ("fox", "red square")
        for s in (*world.STYLES, "blob")
    ]
    return Pictures(torch.stack([disc(CONCEPTS[r.concept]) for r in records]), tuple(records))


@pytest.fixture
def small(monkeypatch):
    for name, number in {"REAL": 12, "SCENES": 40, "CAPTIONS": 30, "COUNTED": 60, "RARE": 2}.items():
        monkeypatch.setattr(kit, name, number)


def test_what_is_written_is_read(tmp_path, small):
    pictures = many()
    save_pictures(pictures, tmp_path / "data")
    called = ["evaluation-data", "--work", str(tmp_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(command.app, called)
    assert result.exit_code == 0, result.output
    found, (train, out) = EvaluationData(tmp_path / "out"), world.split(pictures)
    own = [label for label in found.real.labels if label.unseen == "combination"]
    assert [(x.concept, x.style) for x in own] == [(r.concept, r.style) for r in out.records]
    assert {label.style for label in found.real.labels[len(own) :]} == {"blob"}
    assert torch.equal(found.real.pictures[: len(own)], out.on_white())
    assert found.reference.features.shape == (len(train), 128)
    assert len(found.captions.texts) == 30 and found.captions.counted == 60 and all(found.captions.texts)
    assert found.captions.words["emoji"] <= 60 and min(found.captions.pairs.values()) >= 2
    assert set(found.captions.genders) == {"cook"}
    kinds = [scene.kind for scene in found.scenes]
    assert kinds == ["ground", "pair", "count", "pair"] * 10
    for scene in found.scenes:
        assert scene.kind != "pair" or scene.subjects[0].concept != scene.subjects[1].concept
        assert not (scene.ground == "red" and scene.subjects[0].concept == "red square")
        for subject, mask in zip(scene.subjects, scene.masks, strict=True):
            colour = torch.tensor(CONCEPTS[subject.concept]).view(3, 1) / 255
            assert ((scene.picture[:, mask] - colour).abs().amax(0) < 0.02).float().mean() > 0.9
    again = tmp_path / "again"
    kit.write(pictures, zoo.folder("emoji"), command.RECIPES["emoji"].mix, again)
    for file in again.iterdir():  # nothing depends on luck
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name
