"""Two models side by side: what differs is what was changed, and nothing else."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from denoscope import Edit, compare_models, load, trace
from denoscope.analysis.localisation.comparing import compare
from denoscope.analysis.metrics import latent_distance
from denoscope.comparison import ComparedModels
from denoscope.comparison.weighing import differing, weights_of
from denoscope.editing import quickfix
from denoscope.models.synthetic.tiny import tiny_sd

RUN = {"seeds": [0, 1], "steps": 2}
PROMPTS = ["a cat", "a red dog"]
SITES = ["unet/in/text", "unet/mid.attn.0.0/cross_attn.out"]


@pytest.fixture(scope="module")
def model():
    return load(tiny_sd())


@pytest.fixture(scope="module")
def edit(model) -> Edit:
    return quickfix(model, {"cat": "dog"})


@pytest.fixture(scope="module")
def found(model, edit) -> ComparedModels:
    return compare_models(model, edit.applied, PROMPTS, sites=SITES, **RUN)


def test_it_holds_the_comparison_site_by_site(found, model, edit):
    alone = compare(model, edit.applied, PROMPTS, metric=latent_distance(), sites=SITES, **RUN)
    for name in alone.data.data_vars:
        np.testing.assert_array_equal(found.comparison.data[name], alone.data[name])
    assert found.to_frame().loc["unet/in/text", "effect"] == pytest.approx(1, abs=1e-4)


def test_the_pictures_are_those_of_both_models(found, model, edit):
    for i, change in enumerate((None, edit)):
        with edit.applied(model) if change else torch.no_grad():
            images = trace(model, ["a cat"] * 2, **RUN).images
        pixels = (images.clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        assert (pixels - torch.from_numpy(found.data["pictures"].values[i, :2]).float()).abs().max() <= 1
    assert found.names == ["a cat, seed 0", "a cat, seed 1", "a red dog, seed 0", "a red dog, seed 1"]


def test_the_weights_that_differ_are_those_of_the_edit_and_by_as_much(found, model, edit):
    frame = found.weights()
    assert frame["weight"].tolist() == list(edit.deltas)
    ((name, delta),) = edit.deltas.items()
    norm = float(torch.linalg.vector_norm(model.parameter(name).detach().double()))
    assert frame["relative"][0] == pytest.approx(edit.to_frame()["norm"].iloc[0] / norm, rel=1e-5)
    assert frame["size"][0] == delta.shape.numel()


def test_a_weight_of_one_model_alone_comes_first(model):
    before = weights_of(model)
    gone = next(iter(before))
    del before[gone]
    frame = differing(before, model)
    assert frame["weight"].tolist() == [gone] and np.isnan(frame["relative"][0])


def test_the_same_model_twice_differs_in_nothing(model):
    same = compare_models(model, model, ["a cat"], sites=SITES, seeds=[0], steps=2)
    assert same.weights().empty and same.to_frame()["effect"].isna().all()
    assert (same.to_frame()["relative"] == 0).all()
    assert "nothing to share out" in repr(same)


def test_it_is_kept_and_written(found, tmp_path):
    found.save(tmp_path / "r.zarr")
    again = ComparedModels.load(tmp_path / "r.zarr")
    assert again.weights().equals(found.weights()) and repr(again) == repr(found)
    page = again.page(tmp_path / "c.html", command="denoscope compare a b").read_text()
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])
    assert (
        set(re.findall(r'data-figure="([^"]+)"', page))
        == set(figures)
        == {"pictures", "difference", "effect"}
    )
    assert "1 weights differ" not in page and "1 weight differs" in page and "denoscope compare a b" in page
    assert "<script" not in found._repr_html_() and found.plot().data


def test_a_page_of_nothing_that_differs_says_so(model, tmp_path):
    same = compare_models(model, model, ["<b>a cat</b>"], sites=SITES, seeds=[0], steps=2)
    page = same.page(tmp_path / "c.html").read_text()
    assert "No weight differs" in page and "so there is no difference to share out" in page
    assert "<b>a cat</b>" not in page
