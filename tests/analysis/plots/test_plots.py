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

EVIL = "<script>alert(1)</script><b>bold</b>"


def effects(mean, low, high, rows=("unet/mid.res.0/resnet.out", EVIL), columns=("3:cat", "4:end")):
    dims = ("site", "token")
    data = {k: (dims, np.array(v, float)) for k, v in (("mean", mean), ("low", low), ("high", high))}
    return xr.Dataset(data, coords={"site": list(rows), "token": list(columns)})


def picture(value, shape=(8, 8, 3)):
    return np.full(shape, value, np.uint8)


def decoded(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))))


def test_a_number_stands_only_where_the_interval_leaves_out_zero_and_the_effect_is_not_tiny():
    figure = plots.effect_map(
        effects([[0.9, 0.4], [0.01, -0.3]], [[0.8, -0.1], [0.005, -0.4]], [[1, 0.9], [0.02, -0.2]])
    )
    heat = figure.data[0]
    assert [list(r) for r in heat.text] == [["0.90", ""], ["", "-0.30"]]
    assert [list(r) for r in heat.z] == [[0.9, 0.4], [0.01, -0.3]] and (heat.zmin, heat.zmax) == (-1, 1)
    assert "95% interval -0.100 to 0.900 (holds 0)" in heat.hovertext[0][1]


def test_a_single_run_says_that_it_has_no_interval():
    nan = float("nan")
    figure = plots.effect_map(effects([[0.9, 0.4]], [[nan, nan]], [[nan, nan]], rows=("a",)))
    assert "no interval" in figure.data[0].hovertext[0][0]


def test_effects_of_three_dimensions_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        plots.effect_map(effects([[1, 2]], [[1, 2]], [[1, 2]], rows=("a",)).expand_dims("window"))


def test_text_is_escaped_in_every_figure():
    grid = xr.DataArray(np.stack([picture(9), picture(99)]), dims=("sample", "y", "x", "channel"))
    maps = xr.DataArray(
        np.random.default_rng(0).random((1, 4, 4)), dims=("word", "y", "x"), coords={"word": [EVIL]}
    )
    bars = xr.Dataset({k: (("measure", "when"), [[0.5]]) for k in ("mean", "low", "high")})
    bars = bars.assign_coords(measure=[EVIL], when=[EVIL])
    steps = grid.expand_dims(step=[0, 1], row=[0])
    one = [[1.0, 1.0]]
    figures = [
        plots.effect_map(effects(one, one, one, rows=(EVIL,), columns=(EVIL, "x")), EVIL),
        plots.word_heat(grid[0], maps),
        plots.before_after(grid, grid, [EVIL, "x"]),
        plots.effect_bars(bars),
        plots.sampling_strip(steps.transpose("step", "row", "sample", "y", "x", "channel"), [EVIL]),
    ]
    for figure in figures:
        text = figure.to_json()
        shown = json.dumps(json.loads(text))
        assert "<script" not in shown and "<b>bold" not in shown and "&lt;script" in shown


def test_pictures_go_in_to_the_bit():
    before = xr.DataArray(np.stack([picture(10), picture(20)]), dims=("sample", "y", "x", "channel"))
    figure = plots.before_after(before, before + np.uint8(5), ["a", "b"])
    assert [int(decoded(t.source)[0, 0, 0]) for t in figure.data] == [10, 20, 15, 25]


def test_pictures_that_do_not_pair_up_are_refused():
    one = xr.DataArray(picture(1)[None], dims=("sample", "y", "x", "channel"))
    with pytest.raises(ValueError, match="pair up"):
        plots.before_after(one, one, ["a", "b"])


def test_the_strip_has_a_frame_and_a_slider_stop_for_each_step():
    steps = np.stack([np.stack([np.stack([picture(10 * s + c) for c in range(2)])]) for s in range(3)])
    data = xr.DataArray(steps, dims=("step", "row", "column", "y", "x", "channel"), coords={"step": range(3)})
    figure = plots.sampling_strip(data)
    assert (
        [f.name for f in figure.frames]
        == ["1", "2", "3"]
        == [s.label for s in figure.layout.sliders[0].steps]
    )
    last = decoded(figure.frames[2].data[0].source)
    assert last.shape == (8, 16, 3) and (last[0, 0, 0], last[0, 15, 0]) == (20, 21)
    shown = figure.layout.sliders[0].active
    assert figure.data[0].source == figure.frames[shown].data[0].source


def test_a_word_map_lies_over_the_whole_picture():
    maps = xr.DataArray(np.eye(4)[None], dims=("word", "y", "x"), coords={"word": ["cat"]})
    heat = plots.word_heat(xr.DataArray(picture(9), dims=("y", "x", "channel")), maps).data[1]
    assert (heat.x[0], heat.x[-1]) == (0.5, 6.5)  # centres of 4 cells over 8 pixels, which are at 0..7
    assert np.array_equal(np.array(heat.z), np.eye(4))


def test_bars_carry_their_intervals():
    data = {"mean": [[0.2, 0.8]], "low": [[0.1, 0.7]], "high": [[0.4, 0.85]]}
    bars = xr.Dataset({k: (("measure", "when"), v) for k, v in data.items()})
    figure = plots.effect_bars(bars.assign_coords(measure=["shown"], when=["before", "after"]))
    assert [b.name for b in figure.data] == ["before", "after"] and figure.data[1].x[0] == 0.8
    assert np.allclose([figure.data[0].error_x.array[0], figure.data[0].error_x.arrayminus[0]], [0.2, 0.1])
