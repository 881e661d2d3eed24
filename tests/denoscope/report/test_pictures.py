"""Pictures of the page: which are shown, what they are called, and what is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from denoscope.models.images import to_array
from denoscope.report.images import save_pictures
from denoscope.report.pairs import pairs, pictures

KINDS = ["efficacy", "generality", "generality", "specificity"]


def effect(seeds=(4, 9), kinds=tuple(KINDS)):
    """Pictures of one colour each: 10 for each question, and one more for each seed; 100 more after."""
    colours = [10 * q + s for q in range(len(kinds)) for s in range(len(seeds))]
    before = np.array(colours, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    dims = ("sample", "y", "x", "channel")
    prompts = [f"prompt {q}" for q in range(len(kinds))]
    moved = np.arange(len(colours), dtype=float).reshape(len(kinds), len(seeds))
    return xr.Dataset(
        {
            "before": (dims, before),
            "after": (dims, before + np.uint8(100)),
            "moved": (("question", "seed"), -moved),
            "colour": (("question", "seed"), moved),
        },
        {"seed": list(seeds), "kind": ("question", list(kinds)), "prompt": ("question", prompts)},
    )


def test_every_seed_of_the_edited_prompt_and_the_first_of_other_wordings():
    assert pictures(effect(), "efficacy") == [(0, "prompt 0", 4), (1, "prompt 0", 9)]
    assert pictures(effect(), "generality") == [(2, "prompt 1", 4), (4, "prompt 2", 4)]


def test_other_things_that_changed_most_come_first():
    kinds = ("specificity", "efficacy", "specificity")
    found = [(5, "prompt 2", 9), (4, "prompt 2", 4), (1, "prompt 0", 9), (0, "prompt 0", 4)]
    assert pictures(effect(kinds=kinds), "specificity") == found
    older = effect(kinds=kinds).drop_vars("colour")  # by pixels, where nobody looked at colours
    assert pictures(older, "specificity") == found[::-1]


def test_there_is_room_for_eight():
    assert len(pictures(effect(range(12)), "efficacy")) == 8
    worst = pictures(effect(range(12), ("specificity",)), "specificity")
    assert [seed for _, _, seed in worst] == list(range(11, 3, -1))


def test_a_pair_stands_before_above_after_with_its_name():
    figure = pairs(effect(), "efficacy")
    told = [trace.hovertemplate.removesuffix("<extra></extra>") for trace in figure.data]
    assert told == [f"<b>{when}</b><br>prompt 0, seed {s}" for when in ("before", "after") for s in (4, 9)]
    table = figure.layout.meta["table"]
    assert table["rows"] == [[f"prompt 0, seed {s}", pytest.approx(100 / 255)] for s in (4, 9)]


def test_values_are_rounded_and_kept_in_their_range(tmp_path):
    x = torch.tensor([-1.0, 0.0, 0.4999, 0.5015, 1.0, 2.0]).reshape(1, 1, 2, 3).expand(1, 3, 2, 3)
    made = to_array(x)
    assert made.dims == ("sample", "y", "x", "channel") and made.shape == (1, 2, 3, 3)
    assert made.values[0, :, :, 0].tolist() == [[0, 0, 127], [128, 255, 255]]
    (file,) = save_pictures(x, tmp_path / "new", ["one"])
    assert np.array_equal(np.asarray(Image.open(file)), made.values[0]) and file.name == "one.png"
    with pytest.raises(ValueError, match="shorter"):
        save_pictures(x, tmp_path, [])
