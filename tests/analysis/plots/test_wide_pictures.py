"""Figures of a model that paints 64 x 96: no picture is squeezed, and maps lie where words were read."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from denoscope.analysis import plots, word_maps
from denoscope.models.images import to_array
from denoscope.models.load import load
from denoscope.models.run.context import CallContext
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention

SIZE = (64, 96)


@pytest.fixture(scope="module")
def found() -> Any:
    model = load(tiny_sd()).sized(SIZE)
    assert tuple(model.size) == SIZE

    def corner(x: torch.Tensor, context: CallContext) -> torch.Tensor:
        """Of a picture whose upper right sixth alone reads the word."""
        del context
        rows, width = x.shape[2], next(w for w in (48, 24, 12, 6) if 2 * w * w == 3 * x.shape[2])
        y, x_ = torch.arange(rows) // width, torch.arange(rows) % width
        seen = (y < 2 * width / 3 / 2) & (x_ >= 2 * width / 3)
        return seen.to(x).view(1, 1, -1, 1).expand_as(x)

    sites = model.reading_sites()
    changes = [Intervention(site, corner) for site in sites]
    return word_maps(model, ["a red cat"], ["cat"], seeds=[0], steps=2, interventions=changes)


def sizes(figure: Any) -> set[tuple[int, ...]]:
    sources = [t.source for t in figure.data if hasattr(t, "source")]
    opened = [Image.open(io.BytesIO(base64.b64decode(s.split(",", 1)[1]))) for s in sources]
    return {np.asarray(image).shape for image in opened}


def test_maps_lie_where_the_word_was_read(found: Any) -> None:
    height, width = found.maps.shape[-2:]
    assert 2 * width == 3 * height
    heat = found.maps.values[0, 0]
    inside = heat[: height // 2, 2 * width // 3 :]
    outside = heat.copy()
    outside[: height // 2 + 2, 2 * width // 3 - 2 :] = 0
    assert inside.mean() > 0.8 and outside.mean() < 0.05


def test_a_word_map_over_its_picture(found: Any) -> None:
    pictures = to_array(found.images)
    figure = plots.word_heat(pictures[0], found.maps[0])
    assert sizes(figure) == {(64, 96, 3)}
    assert figure.layout.meta["aspect"] == pytest.approx(64 / 96)
    heat = figure.data[1]
    cell = 96 / found.maps.sizes["x"]
    assert (heat.x[0], heat.x[-1]) == (cell / 2 - 0.5, 96 - cell / 2 - 0.5)
    assert (heat.y[0], heat.y[-1]) == (cell / 2 - 0.5, 64 - cell / 2 - 0.5)
    several = xr.concat([found.maps[0].assign_coords(word=[w]) for w in "abcd"], "word")
    assert plots.word_heat(pictures[0], several).layout.meta["aspect"] == pytest.approx(2 * 64 / (3 * 96))


def test_a_strip_of_a_run(found: Any) -> None:
    steps = to_array(found.images).expand_dims(step=[0, 1], row=[0, 1])
    figure = plots.sampling_strip(steps)
    assert sizes(figure) == {(2 * 64, 96, 3)}
    assert figure.layout.meta["aspect"] == pytest.approx(2 * 64 / 96)


def test_pictures_before_and_after(found: Any) -> None:
    pictures = xr.concat([to_array(found.images)] * 3, "sample")
    figure = plots.before_after(pictures, pictures, ["a", "b", "c"])
    assert sizes(figure) == {(64, 96, 3)}
    assert figure.layout.meta["aspect"] == pytest.approx(2 * 64 / (3 * 96))
