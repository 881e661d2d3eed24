"""Figures hold the numbers they are given; text stays text."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from denoscope.analysis import plots
from denoscope.analysis.plots import bars, pictures, style

EVIL = "<script>alert(1)</script><b>bold</b>"


def effects(mean, low, high, rows=("unet/mid.res.0/resnet.out", EVIL), columns=("3:cat", "4:end")):
    dims = ("site", "token")
    data = {k: (dims, np.array(v, float)) for k, v in (("mean", mean), ("low", low), ("high", high))}
    return xr.Dataset(data, coords={"site": list(rows), "token": list(columns)})


def picture(value, shape=(8, 8, 3)):
    return np.full(shape, value, np.uint8)


def decoded(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))))


def numbers(figure):
    """What is written where: {(row, column): text}."""
    return {(a.y, a.x): a.text for a in figure.layout.annotations}


def luminance(colour):
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", [(0, 0, 0), (217, 72, 15), (37, 99, 235), (255, 255, 255)])
def test_numbers_are_read_on_every_colour(paper):
    figure = plots.effect_map(effects([[0.9, 0.4]], [[0.8, 0.1]], [[1, 0.9]], rows=("a",)))
    note = figure.layout.annotations[0]
    *white, opacity = [float(n) for n in note.bgcolor.removeprefix("rgba(").removesuffix(")").split(",")]
    chip = [opacity * w / 255 + (1 - opacity) * p / 255 for w, p in zip(white, paper, strict=True)]
    ink = [int(note.font.color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    assert (luminance(chip) + 0.05) / (luminance(ink) + 0.05) > 4.5


def test_a_number_stands_only_where_the_interval_leaves_out_zero_and_the_effect_is_not_tiny():
    figure = plots.effect_map(
        effects([[0.9, 0.4], [0.01, -0.3]], [[0.8, -0.1], [0.005, -0.4]], [[1, 0.9], [0.02, -0.2]])
    )
    heat = figure.data[0]
    assert numbers(figure) == {(0, 0): "0.90", (1, 1): "-0.30"}
    assert [list(r) for r in heat.z] == [[0.9, 0.4], [0.01, -0.3]] and (heat.zmin, heat.zmax) == (-1, 1)
    assert "95% interval -0.100 to 0.900 (holds 0)" in heat.hovertext[0][1]


def test_the_limit_is_the_unit_of_colours_ticks_and_numbers():
    figure = plots.effect_map(effects([[0.5, 0.2]], [[0.4, 0.1]], [[0.6, 0.3]], rows=("a",)), limit=10)
    heat = figure.data[0]
    assert (heat.zmin, heat.zmax, heat.colorbar.tickvals) == (-10, 10, (-10, 0, 10))
    assert numbers(figure) == {(0, 0): "0.50"}


def test_the_axes_of_a_map_name_its_rows_and_columns():
    rows = ("a", "b", "c", "d")
    every = [[0.5, 0.25]] * 4
    low, high = [[0.4, 0.0]] * 4, [[0.6, 0.5]] * 4
    figure = plots.effect_map(effects(every, low, high, rows=rows), "share of the effect")
    assert figure.layout.yaxis.ticktext == rows and figure.layout.xaxis.ticktext == ("3:cat", "4:end")
    assert figure.data[0].hovertext[3][1] == (
        "<b>d, 4:end</b><br>share of the effect 0.250<br>95% interval 0.000 to 0.500 (holds 0)"
    )
    assert (
        figure.layout.height > plots.effect_map(effects(every[:3], low[:3], high[:3], rows[:3])).layout.height
    )


def test_a_name_of_a_place_heads_its_hover():
    one = [[1.0, 2.0]]
    names = xr.DataArray([["first", "second"]], dims=("site", "token"))
    figure = plots.effect_map(effects(one, one, one, rows=("a",)).assign(name=names))
    assert figure.data[0].hovertext[0][1].startswith("<b>second</b><br>")


@pytest.mark.parametrize("low", [0.1, float("nan")])
def test_a_single_run_says_that_it_has_no_interval(low):
    figure = plots.effect_map(effects([[0.9, 0.4]], [[low] * 2], [[float("nan")] * 2], rows=("a",)))
    assert "no interval" in figure.data[0].hovertext[0][0]


def test_effects_of_three_dimensions_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        plots.effect_map(effects([[1, 2]], [[1, 2]], [[1, 2]], rows=("a",)).expand_dims("window"))


def test_text_is_escaped_in_every_figure():
    grid = xr.DataArray(np.stack([picture(9), picture(99)]), dims=("sample", "y", "x", "channel"))
    maps = xr.DataArray(
        np.random.default_rng(0).random((1, 4, 4)), dims=("word", "y", "x"), coords={"word": [EVIL]}
    )
    some = xr.Dataset({k: (("measure", "when"), [[0.5]]) for k in ("mean", "low", "high")})
    some = some.assign_coords(measure=[EVIL], when=[EVIL])
    steps = grid.expand_dims(step=[0, 1], row=[0])
    one = [[1.0, 1.0]]
    figures = [
        plots.effect_map(effects(one, one, one, rows=(EVIL,), columns=(EVIL, "x")), EVIL),
        plots.word_heat(grid[0], maps),
        plots.before_after(grid, grid, [EVIL, "x"]),
        plots.effect_bars(some),
        plots.sampling_strip(steps.transpose("step", "row", "sample", "y", "x", "channel"), [EVIL]),
    ]
    for figure in figures:
        told = {k: v for k, v in (figure.layout.meta or {}).items() if k != "table"}  # shown as text alone
        text = figure.update_layout(meta=told, overwrite=True).to_json()
        shown = json.dumps(json.loads(text))
        assert "<script" not in shown and "<b>bold" not in shown and "&lt;script" in shown


def test_pictures_go_in_to_the_bit():
    before = xr.DataArray(np.stack([picture(10), picture(20)]), dims=("sample", "y", "x", "channel"))
    figure = plots.before_after(before, before + np.uint8(5), ["a", "b"])
    assert [int(decoded(t.source)[0, 0, 0]) for t in figure.data] == [10, 20, 15, 25]
    assert [(t.yaxis, t.xaxis) for t in figure.data] == [("y", "x"), ("y2", "x2"), ("y3", "x3"), ("y4", "x4")]
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis3.domain[1]  # before stands above
    told = [t.hovertemplate.removesuffix("<extra></extra>") for t in figure.data]
    assert told == [f"<b>{when}</b><br>{name}" for when in ("before", "after") for name in "ab"]
    assert figure.layout.meta["aspect"] == 1


@pytest.mark.parametrize(("titles", "extra"), [((), 4 + 26), (("a", "b", "c", "d"), 26 + 26)])
def test_panels_say_how_high_they_are_for_their_width(titles, extra):
    """The page draws them ``aspect * width + extra`` pixels high."""
    figure = pictures.panels(2, 4, titles)
    assert figure.layout.meta == {"aspect": 0.5, "extra": extra}


def test_pictures_that_do_not_pair_up_are_refused():
    one = xr.DataArray(picture(1)[None], dims=("sample", "y", "x", "channel"))
    with pytest.raises(ValueError, match="pair up"):
        plots.before_after(one, one, ["a", "b"])
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 3\) before, \(2, 8, 8, 3\) after, 1 names"):
        plots.before_after(one, xr.concat([one, one], "sample"), ["a"])


def test_the_strip_has_a_frame_and_a_slider_stop_for_each_step():
    steps = np.stack([np.stack([np.stack([picture(10 * s + c) for c in range(2)])]) for s in range(3)])
    data = xr.DataArray(steps, dims=("step", "row", "column", "y", "x", "channel"), coords={"step": range(3)})
    figure = plots.sampling_strip(data, ["noise"])
    assert (
        [f.name for f in figure.frames]
        == ["1", "2", "3"]
        == [s.label for s in figure.layout.sliders[0].steps]
    )
    last = decoded(figure.frames[2].data[0].source)
    assert last.shape == (8, 16, 3) and (last[0, 0, 0], last[0, 15, 0]) == (20, 21)
    shown = figure.layout.sliders[0].active
    assert shown == 1 and figure.data[0].source == figure.frames[shown].data[0].source
    assert [s.args[0] for s in figure.layout.sliders[0].steps] == [("1",), ("2",), ("3",)]
    assert figure.data[0].hovertemplate == "row 1: noise<extra></extra>"
    assert figure.layout.meta["aspect"] == 0.5


def test_a_mosaic_keeps_each_picture_whole():
    data = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(1, 2, 3, 4, 5, 3)
    figure = plots.sampling_strip(
        xr.DataArray(data, dims=("step", "row", "column", "y", "x", "channel"), coords={"step": [0]})
    )
    made = decoded(figure.data[0].source)
    assert made.shape == (8, 15, 3) and np.array_equal(made[4:, 10:], data[0, 1, 2])


def test_a_word_map_lies_over_the_whole_picture():
    maps = xr.DataArray(np.eye(4)[None], dims=("word", "y", "x"), coords={"word": ["cat"]})
    heat = plots.word_heat(xr.DataArray(picture(9), dims=("y", "x", "channel")), maps).data[1]
    assert (heat.x[0], heat.x[-1]) == (0.5, 6.5)  # centres of 4 cells over 8 pixels, which are at 0..7
    assert np.array_equal(np.array(heat.z), np.eye(4))


def test_a_wide_picture_has_wide_cells():
    """One panel a word, three in a row; each with its own map."""
    values = np.random.default_rng(0).random((5, 2, 4))
    maps = xr.DataArray(values, dims=("word", "y", "x"), coords={"word": list("abcde")})
    figure = plots.word_heat(xr.DataArray(picture(9, (6, 16, 3)), dims=("y", "x", "channel")), maps)
    heats = figure.data[1::2]
    assert all(np.array_equal(np.array(h.z), v) for h, v in zip(heats, values, strict=True))
    assert (heats[0].x, heats[0].y) == ((1.5, 5.5, 9.5, 13.5), (1, 4))
    titles = [t.text for t in figure.layout.annotations]
    assert [h.hovertemplate[0] for h in heats] == list("abcde") == [t[0] for t in titles]
    assert titles == [f"{w} (up to {v.max():.2g})" for w, v in zip("abcde", values, strict=True)]
    at = [figure.layout[h.xaxis.replace("x", "xaxis")].domain[0] for h in heats]
    assert at[:3] == sorted(set(at)) and at[3:] == at[:2]
    up = [figure.layout[h.yaxis.replace("y", "yaxis")].domain for h in heats]
    assert len({*up[:3]}) == len({*up[3:]}) == 1 and up[0][0] > up[3][1]
    assert figure.layout.meta["aspect"] == pytest.approx(2 * 6 / (3 * 16))


def test_the_picture_below_a_word_map_is_grey_as_the_eye_sees_it():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    maps = xr.DataArray(np.eye(2)[None], dims=("word", "y", "x"), coords={"word": ["cat"]})
    below = decoded(plots.word_heat(xr.DataArray(colours, dims=("y", "x", "channel")), maps).data[0].source)
    red, green, blue, black = below[0, :, 0].astype(int)
    assert (below == below[..., :1]).all()
    assert 255 > green > red > blue > black > 50


def test_bars_carry_their_intervals():
    data = {"mean": [[0.2, 0.8]], "low": [[0.1, 0.7]], "high": [[0.4, 0.85]]}
    some = xr.Dataset({k: (("measure", "when"), v) for k, v in data.items()})
    figure = plots.effect_bars(some.assign_coords(measure=["shown"], when=["before", "after"]))
    assert [b.name for b in figure.data] == ["before", "after"] and figure.data[1].x[0] == 0.8
    assert np.allclose([figure.data[0].error_x.array[0], figure.data[0].error_x.arrayminus[0]], [0.2, 0.1])
    assert figure.data[1].hovertext[0] == "shown<br>after <b>0.800</b><br>95% interval 0.700 to 0.850"
    assert figure.data[0].marker.color != figure.data[1].marker.color


def test_bars_without_numbers_are_left_out_and_those_without_intervals_have_no_whiskers():
    nan = float("nan")
    data = {"mean": [[0.5], [nan]], "low": [[nan], [nan]], "high": [[nan], [nan]]}
    some = xr.Dataset({k: (("measure", "when"), v) for k, v in data.items()})
    figure = plots.effect_bars(some.assign_coords(measure=["is it shown", "other"], when=["before"]))
    (bar,) = figure.data
    assert bar.x == (0.5, None) and (bar.error_x.array, bar.error_x.arrayminus) == ((0, 0), (0, 0))
    assert bar.y == ("is<br>it shown", "other") and figure.layout.yaxis.autorange == "reversed"
    assert "no interval: a single run" in bar.hovertext[0]
    assert (
        figure.layout.height
        > plots.effect_bars(some.assign_coords(when=["a"]).isel(measure=[0])).layout.height
    )


def test_backgrounds_are_transparent_and_what_came_of_a_change_is_in_colour():
    for figure in (
        pictures.panels(1, 1),
        plots.effect_map(effects([[1, 1]], [[1, 1]], [[1, 1]], rows=("a",))),
    ):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    before, after, *_ = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in bars.COLOURS)
    assert max(before) - min(before) < 20 < 100 < max(after) - min(after)  # grey, and the accent


def test_an_interval_that_begins_at_zero_holds_it():
    assert style.interval_text(0.0, 0.5) == "95% interval 0.000 to 0.500 (holds 0)"
    assert style.interval_text(-0.5, -0.1) == "95% interval -0.500 to -0.100"
