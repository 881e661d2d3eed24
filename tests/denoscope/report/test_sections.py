"""Each section by itself, on made up results: every figure and every word is of the right numbers."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from denoscope.report.causal_map import CausalMap
from denoscope.report.plain import plain_cost, plain_metric, plain_site, plain_token
from denoscope.report.results import Results
from denoscope.report.sections import (
    change,
    check,
    closing,
    denoiser_cause,
    look,
    opening,
    text_cause,
    words,
)
from tests.denoscope.report.test_findings import cause
from tests.denoscope.report.test_pictures import effect

COST = {"rows": 1200, "reference_rows": 34000}
SHOWN = {
    "efficacy": {"before": (0, 4), "after": (3, 4), "oracle": (4, 4)},
    "specificity": {"before": (9, 9), "after": (7, 9), "oracle": (9, 9)},
}


def colours(figure):
    """The first pixel of each picture of a figure."""
    pictures = [t for t in figure.data if t.type == "image"]
    return [
        int(np.asarray(Image.open(io.BytesIO(base64.b64decode(t.source.split(",", 1)[1]))))[0, 0, 0])
        for t in pictures
    ]


# look -------------------------------------------------------------------------------------------------


def looked():
    dims = ("sample", "y", "x", "channel")
    pictures = np.array([10, 200], np.uint8)[:, None, None, None] * np.ones((1, 4, 8, 3), np.uint8)
    steps = np.stack([pictures, pictures + np.uint8(1)])
    maps = np.arange(2 * 2 * 2 * 4, dtype=float).reshape(2, 2, 2, 4)
    return xr.Dataset(
        {
            "pictures": (dims, pictures),
            "noisy": (("step", *dims), steps),
            "predicted": (("step", *dims), steps + np.uint8(20)),
            "words": (("sample", "word", "map_y", "map_x"), maps),
        },
        {"step": [0, 1], "word": ["a", "cat"]},
    )


def test_the_noisy_picture_stands_above_the_predicted_one():
    figure = look.section(SimpleNamespace(stages={"look": looked()})).figures["strip"]
    frame = figure.frames[1].data[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(frame.source.split(",", 1)[1]))))
    assert pixels.shape == (8, 16, 3)  # two samples beside each other
    assert [int(pixels[y, x, 0]) for y in (0, 7) for x in (0, 15)] == [11, 201, 31, 221]
    assert frame.hovertemplate.startswith("row 1: the noisy picture<br>row 2: what the network predicts")


def test_words_are_those_of_the_first_picture():
    figure = words.section(SimpleNamespace(stages={"look": looked()})).figures["words"]
    first, second = (t for t in figure.data if t.type == "heatmap")
    assert np.array_equal(np.array(first.z), np.arange(8.0).reshape(2, 4))
    assert np.array_equal(np.array(second.z), 8 + np.arange(8.0).reshape(2, 4))
    assert len(first.x) == 4 and max(first.x) > max(first.y)
    assert max(colours(figure)) < 120  # the dark picture


# causes -----------------------------------------------------------------------------------------------


def test_each_kind_of_state_has_a_map_of_layers_and_tokens():
    planted = cause([[0.03, 0.9], [0.2, 0.1]])
    data = planted.data.assign_coords(kind=("site", ["self_attn.out", "mlp.out"]))
    data = data.assign_attrs(carried="{}", **COST)
    results = SimpleNamespace(
        text=CausalMap.of(type(planted)(data)),
        denoiser=SimpleNamespace(proportion=False),
        stages={"text": data},
        asked={"about": "cat"},
    )
    made = text_cause.section(results)
    assert set(made.figures) == {"text self_attn.out", "text mlp.out"}
    (heat,) = made.figures["text self_attn.out"].data
    assert np.array(heat.z).shape == (1, 2) and heat.z[0] == pytest.approx((0.03, 0.9))
    layout = made.figures["text mlp.out"].layout
    assert layout.yaxis.ticktext == ("layer 1",) and layout.xaxis.ticktext == ("cat", "end")
    assert made.values["text_maps"][1] == {"name": "text mlp.out", "title": "MLP"}
    assert made.values["proportion"] is False  # only where both maps are of shares
    assert made.values["text_cost"].startswith("1,200 network rows; the published scheme needs 34,000 ")


def denoised():
    """Three sites in two windows: a block of the UNet has two kinds, the next one a kind."""
    sites = ["unet/up.0.res.0/resnet.out", "unet/up.0.attn.0.0/cross_attn.out", "unet/up.1.attn.0.1/mlp.out"]
    values = np.array([[0.1, 0.2], [0.3, 0.9], [0.5, 0.6]])
    cells = xr.Dataset(
        {k: (("site", "window"), values + d) for k, d in (("mean", 0), ("low", -0.05), ("high", 0.05))},
        {
            "site": sites,
            "block": ("site", ["up.0.res.0", "up.0.attn.0.0", "up.1.attn.0.1"]),
            "kind": ("site", ["resnet.out", "cross_attn.out", "mlp.out"]),
            "window": ["0-4", "5-9"],
        },
    )
    return CausalMap(cells, True, (1.0, 0.9, 1.1), "S")


def test_each_window_has_a_map_of_blocks_and_kinds_of_layers():
    results = SimpleNamespace(denoiser=denoised(), stages={"denoiser": xr.Dataset(attrs=COST)})
    made = denoiser_cause.section(results)
    assert list(made.figures) == ["denoiser steps 1–5", "denoiser steps 6–10"]
    figure = made.figures["denoiser steps 6–10"]
    # the first block is drawn on top; kinds in the order of the page's words
    assert figure.layout.yaxis.ticktext == ("up.1 · 0.1", "up.0 · 0")
    assert figure.layout.xaxis.ticktext == ("cross-attention", "MLP", "convolutions")
    z = np.array(figure.data[0].z, float)
    np.testing.assert_array_equal(z, [[np.nan, 0.6, np.nan], [0.9, np.nan, 0.2]])
    assert figure.data[0].hovertext[1][0].startswith("<b>unet/up.0.attn.0.0/cross_attn.out</b>")
    assert made.values["denoiser"] == "UNet"


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("up.1.res.0", "up.1 · 0"),
        ("up.1.attn.0.0", "up.1 · 0"),
        ("up.1.attn.0.1", "up.1 · 0.1"),
        ("mid.attn.0", "mid · 0"),
        ("block.3", "block.3"),
    ],
)
def test_a_block_and_the_attention_after_it_have_one_name(block, name):
    assert denoiser_cause._place(block) == name


def test_tokens_and_streams_are_in_words():
    assert plain_token("3:a:b") == "“a:b”" and plain_token("4:end") == "the end token"
    assert plain_site("transformer/block.0/mlp.out@txt") == "the MLP of the text of block 0"
    assert plain_site("transformer/block.0/mlp.out@img") == "the MLP of the picture of block 0"


def test_metrics_and_costs_are_in_words():
    assert plain_metric("clip_score(own prompt)") == "CLIP score of the pictures with the prompt"
    assert plain_metric("latent_distance()") == "latent distance to the clean run"
    assert plain_metric("mine") == "mine"
    assert plain_cost(xr.Dataset(attrs=COST)) == (
        "1,200 network rows; the published scheme needs 34,000 for the same scores."
    )


# change and check -------------------------------------------------------------------------------------


def edited(**note):
    note = {"method": "quickfix", "site": "text_encoder/layer.0/self_attn.out", **note}
    return SimpleNamespace(note=note, size=lambda: 25_600, deltas={"a.weight": 0})


def of_edit(**note):
    stages = {"effect": effect()}
    return {"edit": edited(**note), "stages": stages, "about": {}, "text": None, "instead": "dog"}


def test_pictures_of_other_wordings_and_of_other_things_are_shown():
    made = change.section(SimpleNamespace(**of_edit(keep=["a", "b"])))
    assert list(made.figures) == ["grid-generality", "grid-specificity"]
    assert colours(made.figures["grid-generality"]) == [10, 20, 110, 120]
    told = made.values["edit"]
    assert told["site"] == "the self-attention of layer 0" and told["how"] == ""
    assert told["address"] == "text_encoder/layer.0/self_attn.out"
    assert told["size"] == "25,600" and told["edited"] == "one weight matrix was"
    assert made.values["kept"] == 2
    assert made.values["grids"][0]["caption"] == "From left to right: prompt 1; prompt 2."
    assert change.section(SimpleNamespace(**of_edit())).values["kept"] == 0


def test_without_a_judge_nothing_is_shown():
    frame = pd.DataFrame(
        [
            ("efficacy", s, shown)
            for s in ("before", "after", "oracle")
            for shown in (True, s == "after", False)
        ],
        columns=["kind", "state", "shown"],
    )
    checked = SimpleNamespace(to_frame=lambda: frame)
    for judged in (0, 1):
        stages = {"effect": xr.Dataset(attrs={"judged": judged})}
        results = Results(stages, {}, None, None, None, checked)
        counts = {"efficacy": {"before": (1, 3), "after": (2, 3), "oracle": (1, 3)}}
        assert results.judged is bool(judged) and results.shown == (counts if judged else {})
        of = Results(stages, {"about": {"judge": {"name": "mine"}}}, None, None, None, checked)
        assert of.judge == ({"name": "mine"} if judged else {})
        assert results.looks is None  # nobody looked in that version


def test_how_many_other_things_look_as_before():
    rows = [
        (kind, state, f"{kind} {i}", far)
        for kind in ("efficacy", "specificity")
        for state in ("before", "after")
        for i, far in enumerate((10.0, 10.1, 3.0))
    ]
    frame = pd.DataFrame(rows, columns=["kind", "state", "prompt", "colour"])
    checked = SimpleNamespace(to_frame=lambda: frame)
    assert Results({}, {}, None, None, None, checked).looks == (2, 3, "specificity 1", 10.1)
    checked = SimpleNamespace(to_frame=lambda: frame[frame["kind"] == "efficacy"])
    assert Results({}, {}, None, None, None, checked).looks is None


def checked(judged, **judge):
    """What moved, and what the judge said: a number of its own for each kind, state and measure."""
    kinds, states = ("efficacy", "generality", "specificity"), ("before", "after", "oracle")
    rows = [
        (kind, state, measure, 0.1 * k + 0.01 * s + 0.001 * m)
        for k, kind in enumerate(kinds)
        for s, state in enumerate(states)
        for m, measure in enumerate(("shown", "fit", "moved"))
    ]
    summary = pd.DataFrame(rows, columns=["kind", "state", "measure", "mean"])
    summary["low"], summary["high"] = summary["mean"] - 0.01, summary["mean"] + 0.01
    frame = summary[summary["measure"] == "moved"].rename(columns={"mean": "moved"})
    evaluation = SimpleNamespace(summary=lambda: summary, to_frame=lambda: frame)
    return SimpleNamespace(
        checked=evaluation,
        judged=judged,
        judge=judge,
        shown=SHOWN if judged else {},
        looks=(3, 4, "a herb", 15.4),
        stages={"effect": xr.Dataset(coords={"candidate": ["cat", "dog"]})},
        instead="dog",
    )


def bars(figure):
    return {b.name: dict(zip((y.replace("<br>", " ") for y in b.y), b.x, strict=True)) for b in figure.data}


def test_a_judges_measures_are_each_a_figure():
    made = check.section(checked(judged=True))
    assert set(made.figures) == {"shown", "fit"}
    assert made.values["judged"] and made.values["candidates"] == "cat, dog"
    shown, fit = bars(made.figures["shown"]), bars(made.figures["fit"])
    assert shown["after"] == pytest.approx(
        {"the edited prompt": 0.01, "other wordings": 0.11, "other things": 0.21}
    )
    assert fit["unedited, asked outright"]["other things"] == pytest.approx(0.221)
    assert len(made.findings) == 4
    assert "3 look as before at a glance; most changed is “a herb”" in made.findings[2].text


@pytest.mark.parametrize(
    ("kind", "fit"),
    [
        ("CLIPModel", "CLIP score with the text"),
        ("ViTForImageClassification", "Probability of the label"),
        ("a function", "Fit with the text"),
    ],
)
def test_the_judge_is_named_and_what_its_numbers_are(kind, fit):
    values = check.section(checked(judged=True, name="mine", kind=kind)).values
    assert values["judged_by"] == f"mine ({kind})" and values["fit_name"] == f"{fit} that should be shown"
    assert check.section(checked(judged=True)).values["judged_by"] == ""


def test_without_a_judge_pixels_are_told():
    made = check.section(checked(judged=False))
    assert bars(made.figures["moved"]) == {
        "after": pytest.approx({"the edited prompt": 0.012, "other wordings": 0.112, "other things": 0.212})
    }
    looks, told = made.findings
    assert looks.weak and "(colour difference 15;" in looks.text
    assert "edited prompt by 1.2%" in told.text and "other things by 21.2%" in told.text and told.weak


# top and end ------------------------------------------------------------------------------------------

ASKED = {"prompt": "a cat", "about": "cat", "change_to": "dog", "model": "emoji", "seeds": 2, "steps": 10}
ABOUT = {
    "guidance": 4.0, "scheduler": "DDIM", "parameters": 1_000_000, "seeds": [4, 9], "edit": "e.safetensors",
    "versions": {"torch": "2"}, "machine": {"cores": 2},
}  # fmt: skip


def opened(**more):
    return SimpleNamespace(
        **{
            "asked": ASKED,
            "about": ABOUT,
            "text": CausalMap.of(cause([[0.03, 0.9], [0.0, 0.1]])),
            "edit": edited(),
            "shown": SHOWN,
            "looks": (7, 9, "a herb", 15.4),
            "stages": {"effect": effect()},
            "checked": True,
            "changes": None,
            "instead": "dog",
            "goal": "“cat” is read as “dog”",
            **more,
        }
    )


def test_the_top_tells_what_was_asked_and_the_numbers_to_remember():
    made = opening.section(opened())
    assert made.values["facts"] == ["model emoji", "2 seeds", "10 steps", "guidance 4", "DDIM"]
    tiles = [(t["value"], t["text"].split(" ")[-1]) for t in made.values["tiles"]]
    assert tiles == [("90%", "restored"), ("2.56%", "training"), ("3/4", "“dog”"), ("7/9", "glance")]
    assert "the self-attention of layer 0 at the end token" in made.values["tiles"][0]["text"]
    assert colours(made.figures["hero"]) == [0, 1, 100, 101]
    assert made.values["title"] == made.values["prompt"] == "a cat"


def test_without_shares_or_a_judge_the_tiles_do_not_speak_of_them():
    text = opened().text
    unsure = CausalMap(text.cells, False, text.total, "S")
    made = opening.section(opened(text=unsure, shown={}, looks=None, about={**ABOUT, "seeds": [4]}))
    assert [t["value"] for t in made.values["tiles"]] == ["2.56%"] and "1 seed" in made.values["facts"]


def test_the_end_names_the_judge_and_its_weights():
    about = {**ABOUT, "judge": {"name": "mine", "kind": "CLIPModel", "weights": "f00"}}
    whole = {"about": about, "settings": {"weights": "abc"}, "key": "k", "seconds": {}}
    made = closing.section(SimpleNamespace(about=about, asked=ASKED, whole=whole, edit=edited())).values
    assert ("judge", "mine, CLIPModel, f00") in made["provenance"]


@pytest.mark.parametrize("command", [None, "denoscope demo"])
def test_the_end_tells_where_everything_comes_from(command):
    about = ABOUT | ({"command": command} if command else {})
    whole = {"about": about, "settings": {"weights": "abc"}, "key": "k", "seconds": {"look": 1.25}}
    made = closing.section(SimpleNamespace(about=about, asked=ASKED, whole=whole, edit=edited())).values
    assert made["command"] == (command or 'denoscope investigate "a cat" --about cat --change-to dog')
    assert made["provenance"] == [
        ("made by", command or "denoscope.investigation.investigate"),
        ("seeds", "4, 9"),
        ("weights (sha256)", "abc"),
        ("edit", "e.safetensors"),
        ("settings", "k"),
        ("torch", "2"),
        ("cores", "2"),
        ("seconds: look", "1.25"),
    ]
