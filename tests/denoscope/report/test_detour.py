"""The section about what comes back: every sentence and every bar is of the planted numbers."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from denoscope import Edit
from denoscope.analysis import Robustness
from denoscope.analysis.scores import load_store
from denoscope.report.page import render
from denoscope.report.sections.detour import section, tell

# probe, attack, who, budget, what is shown, is the clean picture
TRIALS = (
    ("plain", "the prompt", "clean", np.nan, 0.8, True),
    ("plain", "the prompt", "edited", np.nan, 0.0, False),
    ("paraphrase", "capitals", "edited", np.nan, 0.01, False),
    ("paraphrase", "plural", "edited", np.nan, 0.1, False),
    ("paraphrase", "plural", "clean", np.nan, 0.7, False),
    ("clean_embeddings", "prompt and empty text", "edited", np.nan, 0.8, True),
    ("completion", "clean, then edited", "edited", 2, 0.1, False),
    ("completion", "clean, then edited", "edited", 4, 0.5, False),
    ("completion", "clean, then edited", "edited", 8, 0.8, True),
    ("completion", "clean, then asked for the other", "clean", 4, 0.6, False),
    ("embedding", "1 token from “cat”", "edited", 40, 0.6, False),
    ("embedding", "1 token from “dog”", "clean", 40, 0.7, False),
)


def planted(trials=TRIALS):
    probe, attack, who, budget, shown, same = (list(x) for x in zip(*trials, strict=True))
    values = np.array(shown)[:, None] + np.array([[-0.02, 0.0, 0.02]])
    names = {"probe": probe, "attack": attack, "who": who, "budget": budget, "is_clean": same}
    coords = {
        "seed": range(3),
        **{k: ("trial", v) for k, v in names.items()},
        "rows": ("trial", [7] * len(who)),
    }
    data = {k: (("trial", "seed"), values) for k in ("shown", "other", "fit")}
    data["psnr"] = (("trial", "seed"), np.full_like(values, np.nan))
    data["pictures"] = (("trial", "y", "x", "channel"), np.zeros((len(who), 4, 4, 3), np.uint8))
    return xr.Dataset(data, coords, {"about": "cat", "instead": "dog", "measure": "probability"})


def told(trials=TRIALS):
    return tell(Robustness(planted(trials)), "cat", "dog")


def test_each_sentence_says_its_numbers():
    way, token, begun, words = told()
    assert "to the bit: the edit is a detour around “cat”" in way.text and not way.weak
    assert token.text == (
        "One fitted token (40 steps) brings back 0.60 of 0.80; begun at “dog” in the unedited model, the "
        "same fit reaches 0.70."
    )
    assert token.weak and not words.weak
    assert "once it has painted 4 of 8 steps" in begun.text
    assert words.text == "Of 2 other wordings of “cat”, plural brings back most: 0.10."


def test_an_edit_of_the_denoiser_is_told():
    trials = [(*t[:5], False) if t[0] == "clean_embeddings" else t for t in TRIALS]
    assert told(trials)[0].text.startswith("The edit lies in the denoiser too")


def test_what_was_not_taken_away_cannot_come_back():
    trials = [(*t[:4], 0.9, t[5]) if t[:3] == ("plain", "the prompt", "edited") else t for t in TRIALS]
    _, nothing = told(trials)
    assert nothing.weak and "took nothing away" in nothing.text


def test_what_was_not_tried_is_not_told():
    assert [f.text[:9] for f in told(TRIALS[:5])] == ["Of 2 other"[:9]]


def test_the_bars_are_of_the_strongest_attacks_and_their_controls():
    made = section(SimpleNamespace(stages={"robustness": planted()}, asked={"about": "cat"}, instead="dog"))
    edited, control = made.figures["detour"].data
    names = [y.replace("<br>", " ") for y in edited.y]
    assert dict(zip(names, edited.x, strict=True)) == pytest.approx({
        "the prompt itself": 0.0, "paraphrase: plural": 0.1, "clean_embeddings: prompt and empty text": 0.8,
        "completion: clean, then edited": 0.5, "embedding: 1 token from “cat”": 0.6,
    })  # fmt: skip
    assert list(control.x) == [pytest.approx(0.8), pytest.approx(0.7), None, pytest.approx(0.6),
                               pytest.approx(0.7)]  # fmt: skip


def test_without_a_judge_there_is_no_section():
    assert section(SimpleNamespace(stages={})).values == {"detour": None}


def test_the_page_has_the_section_where_there_is_a_sheet(finished):
    found = {n: load_store(finished / "results.zarr" / n) for n in ("look", "text", "denoiser", "effect")}
    whole = json.loads((finished / "run.json").read_text())
    edit = Edit.load(finished / "edit.safetensors")
    page = render({**found, "robustness": planted()}, whole, edit)
    assert 'id="detour"' in page and 'href="#detour"' in page
    assert "detour" in json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])
    assert 'id="detour"' not in render(found, whole, edit)
