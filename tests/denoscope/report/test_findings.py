"""Sentences say what the numbers say, and no more."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from denoscope.analysis.mediation.result import Mediation
from denoscope.report import findings
from denoscope.report.causal_map import CausalMap, sure
from denoscope.report.plain import plain_window

SITES = ["text_encoder/layer.0/self_attn.out", "text_encoder/layer.1/self_attn.out"]
TOKENS = {"token": ["3:cat", "4:end"], "role": ("token", ["subject", "end"])}


def cause(restored, clean=1.0, corrupted=0.0, columns=TOKENS, spread=0.01):
    """A mediation whose restored scores are planted, [site, column]."""
    seeds, noise = 6, np.linspace(-spread, spread, 6)
    name = next(iter(columns))
    values = np.array(restored)[:, :, None, None, None] + noise[None, None, None, :, None]
    base = np.full((1, seeds), float(clean)) + noise * 0
    data = {
        "clean": (("prompt", "seed"), base),
        "corrupted": (("prompt", "seed", "draw"), (np.full((1, seeds), float(corrupted)) + noise)[..., None]),
        "restored": (("site", name, "prompt", "seed", "draw"), values),
    }
    coords = {
        "site": SITES,
        "block": ("site", ["layer.0", "layer.1"]),
        "kind": ("site", ["self_attn.out"] * 2),
    }
    return Mediation(xr.Dataset(data, {**coords, **columns}, {"metric": "clip_score(own prompt)"}))


def test_the_planted_state_is_named_with_its_share():
    said = findings.tell_text(CausalMap.of(cause([[0.03, 0.9], [0.0, 0.1]])), "cat")
    assert "self-attention of layer 0 at the end token brings back 90%" in said[0].text and not said[0].weak
    assert "At the word “cat” itself no state brings back more than 3.0%" in said[1].text
    assert "In all other layers, no state brings back more than 10%" in said[2].text


def test_the_state_nearest_to_the_clean_run_wins_over_one_that_overshoots():
    best = CausalMap.of(cause([[0.0, 1.4], [0.95, 0.1]])).ranked().iloc[0]
    assert (best["block"], best["token"]) == ("layer.1", "3:cat")


def test_an_interval_that_holds_zero_is_said_and_marked_weak():
    found = CausalMap.of(cause([[0.0, 0.02], [0.0, 0.0]]))
    cells = found.cells.assign(low=found.cells["mean"] - 1, high=found.cells["mean"] + 1)
    weak = findings.tell_text(CausalMap(cells, True, found.total, "score"), "cat")
    assert "which holds 0" in weak[0].text and weak[0].weak


def test_no_total_effect_is_told_and_no_shares_are_taken():
    found = CausalMap.of(cause([[0.0, 0.0], [0.0, 0.0]], clean=0.0, corrupted=0.0, spread=0.1))
    told = findings.tell_total(found, "cat")
    assert not found.proportion and told.weak and "noise" in told.text
    assert "%" not in findings.tell_text(found, "cat")[0].text.replace("95%", "")


def test_the_unet_sentence_counts_what_restores_more_than_half():
    found = CausalMap.of(cause([[0.6, 0.9], [0.2, 0.1]], columns={"window": ["0-5", "6-11"]}))
    first, second = findings.tell_denoiser(found)
    assert (
        "steps 7–12" in first.text
        and "90%" in first.text
        and "Of 4 pairs of layer and window, 2" in second.text
    )


SHOWN = {
    "efficacy": {"before": (0, 4), "after": (4, 4), "oracle": (4, 4)},
    "generality": {"before": (1, 8), "after": (1, 8), "oracle": (8, 8)},
    "specificity": {"before": (9, 9), "after": (7, 9), "oracle": (9, 9)},
}


def test_counts_are_told_and_failures_are_marked():
    works, fails, harms = findings.tell_effect(SHOWN, "dog")
    assert "4 of 4 pictures fit “dog”" in works.text and not works.weak
    assert "1 of 8" in fails.text and fails.weak
    assert "7 still fit" in harms.text and harms.weak


@pytest.mark.parametrize(("label", "words"), [("0-5", "steps 1–6"), ("3", "step 4")])
def test_windows_are_counted_from_one(label, words):
    assert plain_window(label) == words


def test_only_an_interval_that_leaves_out_zero_is_sure():
    nan = float("nan")
    intervals = [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1), (nan, nan)]
    assert [sure(*i) for i in intervals] == [True, True, False, False, False]
