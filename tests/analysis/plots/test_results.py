"""Figures take results as they are, and results draw and show themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import denoscope
from denoscope.analysis import plots
from denoscope.analysis.edit_evaluation.evaluate import evaluate_edit
from denoscope.analysis.edit_evaluation.prompts import evaluation_prompts
from denoscope.analysis.mediation.result import Mediation
from denoscope.analysis.metrics import latent_distance
from denoscope.analysis.scores import Scores
from denoscope.editing import quickfix
from denoscope.models.images import to_array
from tests.models.test_html import harmless

PROMPTS = ["a red cat", "a dog"]


@pytest.fixture(scope="module")
def found(tiny: Any) -> Any:
    return denoscope.analysis.word_maps(tiny, PROMPTS, seeds=[0, 1], steps=2)


@pytest.fixture(scope="module")
def cause(tiny: Any) -> Mediation:
    return denoscope.analysis.trace_text(
        tiny,
        PROMPTS[:1],
        "cat",
        seeds=[0, 1],
        steps=2,
        metric=latent_distance(),
        corruption=denoscope.analysis.Noise(draws=1),
        layers=[0],
    )


class FixedJudge:
    def similarity(self, images: Any, texts: Any) -> Any:
        return torch.arange(len(images) * len(texts)).view(len(images), -1) / 100.0


@pytest.fixture(scope="module")
def evaluation(tiny: Any) -> Any:
    tried = evaluation_prompts({"cat": "dog"}, ["a {}"], ["a red {}"], {"cook": ["a {}"]})
    edit = quickfix(tiny, {"cat": "dog"})
    return evaluate_edit(tiny, edit.applied, tried, judge=FixedJudge(), seeds=[0, 1], steps=1)


def test_word_maps_are_drawn_for_one_sample_with_the_words_of_its_prompt(found: Any) -> None:
    figure = found.plot()
    assert [a.text.split(" ")[0] for a in figure.layout.annotations] == ["a", "red", "cat"]
    maps = found.maps.isel(sample=0).dropna("word", how="all")
    heat = figure.data[1::2]
    assert all(np.array_equal(h.z, m) for h, m in zip(heat, maps.values, strict=True))
    low, high = float(maps.min()), float(maps.max())
    assert {(h.zmin, h.zmax) for h in heat} == {(low, high)}  # one scale for all words, shown once
    assert [h.showscale for h in heat] == [True, False, False]
    assert [a.text for a in found.plot(1).layout.annotations][1].startswith("dog (up to ")
    own = found.plot(shared=False).data[1::2]
    assert [(h.zmin, h.zmax) for h in own] == [(float(m.min()), float(m.max())) for m in maps]
    assert found.plot().to_json() == plots.word_heat(found).to_json()
    with pytest.raises(ValueError, match="sample is 2; there are 0 to 1"):
        found.plot(2)
    with pytest.raises(ValueError, match="Trace holds no word maps"):
        plots.word_heat(found.run)


def test_maps_of_every_step_ask_for_one(tiny: Any) -> None:
    every = denoscope.analysis.word_maps(tiny, PROMPTS[:1], seeds=[0], steps=2, time="each")
    with pytest.raises(ValueError, match="maps of every step; choose one"):
        every.plot()
    assert len(plots.word_heat(every, every.maps[0, 0]).data) == 6
    assert harmless(every._repr_html_()) and len(every.to_frame()) == 3


def test_word_maps_show_themselves_and_their_table(found: Any) -> None:
    assert harmless(found._repr_html_()) and found._repr_html_().count("<img") == 3
    frame = found.to_frame()
    assert list(frame["word"]) == ["a", "red", "cat", "a", "dog"] and set(frame["sample"]) == {0, 1}
    cat = frame.iloc[2]
    assert cat["peak"] == pytest.approx(float(found.maps.sel(word="cat")[0][cat["y"], cat["x"]]))
    assert "cat" in repr(found) and "MB" in repr(found)


def test_a_trace_draws_its_pictures_and_tells_its_sites(tiny: Any) -> None:
    run = denoscope.trace(tiny, PROMPTS, seeds=[0, 1], steps=2, sites="unet/mid.attn.*/cross_attn.*")
    figure = run.plot()
    assert [a.text for a in figure.layout.annotations] == ["a red cat, seed 0", "a dog, seed 1"]
    assert len(figure.data) == 2
    frame = run.to_frame()
    assert list(frame.index) == [str(s) for s in run] == run._ipython_key_completions_()
    assert frame["MB"].sum() == pytest.approx(run.nbytes / 1e6)
    assert frame.loc["unet/mid.attn.0.0/cross_attn.out", "axes"] == "token, channel"
    assert f"{run.nbytes / 1e6:.1f} MB" in repr(run)
    pair = plots.before_after(run, run)
    assert {"before", "after"} <= {a.text for a in pair.layout.annotations}
    assert "a red cat, seed 0" in pair.data[0].hovertemplate


def test_scores_and_mediation_are_drawn_and_shown(cause: Mediation) -> None:
    figure = cause.plot()
    shares = cause.normalised.interval()["mean"].transpose("site", "token")
    assert np.allclose(figure.data[0].z, shares.values)
    assert figure.to_json() == plots.effect_map(cause.normalised, "share of the effect").to_json()
    assert cause.to_frame().equals(cause.normalised.to_frame())
    shown = cause._repr_html_()
    assert harmless(shown) and "total effect: mean" in shown
    drawn = cause.indirect_effect.plot()
    assert drawn.data[0].zmax == pytest.approx(float(abs(cause.indirect_effect.mean()).max()))


def test_sites_alone_are_drawn_as_blocks_by_kinds() -> None:
    sites = ["unet/down.0.res.0/resnet.out", "unet/mid.attn.0.0/mlp.out", "unet/mid.attn.0.0/cross_attn.out"]
    values = xr.DataArray(
        [[1.0, 2], [3, 4], [5, 6]], dims=("site", "seed"), coords={"site": sites, "seed": [0, 1]}
    )
    heat = Scores(values).plot().data[0]
    assert Scores(values).plot().layout.yaxis.ticktext == ("unet/down.0.res.0", "unet/mid.attn.0.0")
    assert Scores(values).plot().layout.xaxis.ticktext == ("resnet.out", "mlp.out", "cross_attn.out")
    expected = [[1.5, np.nan, np.nan], [np.nan, 3.5, 5.5]]
    assert np.array_equal(np.array(heat.z, float), expected, equal_nan=True)


def test_an_evaluation_and_an_edit_are_drawn(tiny: Any, evaluation: Any) -> None:
    summary = evaluation.summary().set_index(["kind", "measure", "state"])["mean"]
    figure = evaluation.plot()
    assert [t.name for t in figure.data] == ["before", "after", "oracle"]
    assert list(figure.data[1].x) == [
        summary[k, "shown", "after"] for k in ("efficacy", "generality", "specificity")
    ]
    assert [t.name for t in evaluation.plot("moved").data] == ["after"]
    with pytest.raises(ValueError, match="measure is 'shwon'; there are shown"):
        evaluation.plot("shwon")
    assert harmless(evaluation._repr_html_()) and "oracle" in evaluation._repr_html_()
    edit = quickfix(tiny, {"cat": "dog"})
    assert list(edit.plot().data[0].x) == list(edit.to_frame()["norm"])


def test_what_holds_nothing_to_draw_is_refused(found: Any) -> None:
    with pytest.raises(TypeError, match="a Trace holds no effects; give Scores, a Mediation"):
        plots.effect_map(found.run)
    with pytest.raises(TypeError, match="a list has no pictures; give a Trace"):
        plots.picture_grid([1, 2])


def test_no_figure_offers_to_send_data_away(found: Any) -> None:
    assert found.plot().layout.modebar.remove == ("sendDataToCloud",)
    assert to_array(found.images).dims == ("sample", "y", "x", "channel")
