"""A bias study: its halves, its ways, its page; and the commands that lead there."""

from __future__ import annotations

import json

import pytest
import torch

import denoscope
from denoscope.analysis import BiasFeatures
from denoscope.bias import BiasStudy
from denoscope.bias.labels import classes_of
from denoscope.cli.commands.features import prompts_for
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.models.synthetic.tiny_judges import save_tiny_clip
from denoscope.probes import Dictionary
from tests.denoscope.cli.calling import call, one_line
from tests.denoscope.report.browsing import Page
from tests.dictionaries import Eyes, doubled

SITE, TEXTUAL = "unet/mid.res.1/resid.post", "unet/mid.attn.0.0/cross_attn.out"
RUN = {"steps": 1, "batch": 16}
CLASSES = ["light", "dark"]


SEEDS = [0, 2, 1, 3, 4, 5, 11, 6, 7, 8]
"""The first half paints two light pictures and three dark ones."""


def shade(images):
    """What a picture shows, by how bright it is."""
    return ["light" if m > 0.495 else "dark" for m in images.mean((1, 2, 3))]


@pytest.fixture(scope="module")
def model():
    return denoscope.load(tiny_ddim())


@pytest.fixture(scope="module")
def dictionary(model):
    return doubled(model, SITE)


@pytest.fixture(scope="module")
def made(model, dictionary):
    return denoscope.study_bias(
        model, dictionary, CLASSES, seeds=SEEDS, label=shade, judge=Eyes(), features=8, **RUN
    )


def test_what_it_says_is_of_seeds_with_which_nothing_was_found(made, model):
    data = made.data
    assert data["seed"].values.tolist() == SEEDS[5:] and data.attrs["found_on"] == 5
    assert [str(w) for w in data["way"].values] == ["plain", "features", "as active", "contrast", "means"]
    assert data.attrs["missing"] == {}
    plain = denoscope.trace(model, seeds=SEEDS[5:], steps=1).images
    shown = torch.from_numpy(data["pictures"].values[0]).movedim(-1, 1) / 255
    torch.testing.assert_close(shown, plain, atol=0.003, rtol=0)
    assert data["label"].values[0].tolist() == shade(plain)
    assert data.attrs["towards"] == "light" and data.attrs["strength"] > 0
    assert (data["moved"].values[0] == 0).all() and (data["moved"].values[1] > 0).all()
    assert made.shares()["class"].tolist() == [*CLASSES, "neither"] * 5
    assert made.shares().groupby("way")["mean"].sum().tolist() == pytest.approx([1.0] * 5)
    assert set(made.features()["class"]) <= set(CLASSES) and len(made.to_frame()) == 5


def test_it_is_kept_and_its_page_is_whole(made, tmp_path):
    made.save(tmp_path / "b.zarr")
    again = BiasStudy.load(tmp_path / "b.zarr")
    assert again.data.equals(made.data) and repr(again) == repr(made) and "table" in again._repr_html_()
    text = again.page(tmp_path / "bias.html", command="denoscope bias <b>").read_text()
    page = Page(text)
    assert page.tags.count("img") == 5 * 5 and "script" not in page.tags
    assert all(link.startswith("data:") for link in page.links)
    words = " ".join(page.words)
    assert "denoscope bias <b>" in words and "features by plain class contrast" in words


def test_a_class_without_features_is_told_and_the_rest_is_measured(model, dictionary, tmp_path, monkeypatch):
    plain = BiasFeatures.top
    none = lambda self, name, features=30, by="attribution": (  # noqa: E731
        plain(self, name, features, by) if by == "contrast" else []
    )
    monkeypatch.setattr(BiasFeatures, "top", none)
    given = {"seeds": SEEDS, "label": shade, "judge": Eyes(), **RUN}
    few = denoscope.study_bias(model, dictionary, CLASSES, **given)
    assert [str(w) for w in few.data["way"].values] == ["plain", "means"]
    assert set(few.data.attrs["missing"]) == {"features", "as active", "contrast"}
    assert "no feature speaks for 'light' by attribution" in few.data.attrs["missing"]["features"]
    assert "no features to push" in repr(few) and (few.data["moved"].sel(way="means") > 0).all()
    few.save(tmp_path / "b.zarr")
    words = " ".join(Page(BiasStudy.load(tmp_path / "b.zarr").page(tmp_path / "b.html").read_text()).words)
    assert "No features were found to push" in words and "painted as often already" not in words
    assert "the features found, pushed : no feature speaks for" in words


def red(images):
    """Pictures of one class alone."""
    return ["red"] * len(images)


FEW = {"seeds": range(8), "label": red, "judge": Eyes(), "steps": 1, "guidance": 1.0, "features": 4}


@pytest.mark.stress
def test_a_prompt_that_paints_one_class_is_asked_by_its_word(tiny):
    made = denoscope.study_bias(tiny, doubled(tiny, TEXTUAL), ["red", "dog"], "a cat", about="cat", **FEW)
    assert made.data.attrs["towards"] == "dog" and not made.data.attrs["reached"]
    assert str(made.data["way"].values[-1]) == "words" and "does not make shares equal" in repr(made)


def test_a_prompt_that_paints_one_class_alone_is_told(tiny):
    words = doubled(tiny, TEXTUAL)
    with pytest.raises(UsageError, match="'dog' cannot be told") as caught:
        denoscope.study_bias(tiny, words, ["red", "dog"], "a cat", **FEW)
    assert "name the word that it is about" in caught.value.__notes__[0]
    with pytest.raises(UsageError, match="must be in the prompt"):
        denoscope.study_bias(tiny, words, ["red", "dog"], "a cat", about="dog", **FEW)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ["light"]}, "give two classes"),
        ({"seeds": range(4)}, "8 seeds or more"),
        ({"about": "cat"}, "there is no prompt"),
        ({"features": 0}, "1 feature or more"),
    ],
)
def test_what_cannot_be_studied_is_told(model, dictionary, wrong, message):
    given = {"classes": CLASSES, "seeds": range(16), "label": shade, "judge": Eyes(), **RUN, **wrong}
    with pytest.raises(UsageError, match=message):
        denoscope.study_bias(model, dictionary, **given)


def test_classes_are_labels_of_a_judge(emoji):
    asked = classes_of("gender=woman, man", emoji)
    assert asked.names == ("woman", "man")
    assert set(asked.label(torch.zeros(1, 3, 64, 64))) <= {"woman", "man", "person"}
    with pytest.raises(NotFoundError, match="gender is never 'womn'.*'woman'"):
        classes_of("gender=womn,man", emoji)
    for said in ("gender", "gender=woman", "gender=woman,woman"):
        with pytest.raises(UsageError, match="two of its labels"):
            classes_of(said, emoji)


def test_on_the_command_line(tmp_path):
    tiny_ddim().save_pretrained(tmp_path / "ddim")
    run, file = ["-m", tmp_path / "ddim", "--steps", 1], tmp_path / "d.safetensors"
    train = ["features", "train", SITE, *run, "--seeds", 4, "--updates", 5, "--k", 4, "-o", file]
    told = json.loads(call(*train, "--json").stdout)
    assert set(told["held_out"]) >= {"loss", "explained", "dead"} and Dictionary.load(file).width == 64
    one_line(call(*train), 2, "exists; name a new one")
    save_tiny_clip(tmp_path / "clip")
    out = tmp_path / "bias"
    one_line(call("bias", *run, "--dictionary", file, "-o", out), 2, "no judge ships with")
    one_line(call("bias", "a cat", *run, "-o", out), 2, "reads no text; leave out 'a cat'")
    one_line(call("bias", *run, "--judge", tmp_path / "clip", "-o", out), 2, "was given no attributes")
    assert not out.exists()


def test_prompts_take_turns_and_a_model_that_reads_text_needs_some(tiny, model, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red cat\n\na dog\n")
    assert (
        prompts_for(tiny, file, 3) == ["a red cat", "a dog", "a red cat"]
        and prompts_for(model, None, 3) is None
    )
    with pytest.raises(UsageError, match="name a file of prompts"):
        prompts_for(tiny, None, 3)
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no prompts"):
        prompts_for(tiny, file, 3)
