"""Sentences say what the numbers say, and no more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from denoscope.analysis.mediation.result import Mediation
from denoscope.report import findings
from denoscope.report.causal_map import CausalMap, sure
from denoscope.report.plain import amount, plain_window

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


@pytest.mark.parametrize(("clean", "corrupted"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_total_effect_is_told_as_a_size(clean, corrupted):
    """A distance falls where a score rises; the interval is told from its smaller end."""
    found = CausalMap.of(cause([[0.5, 0.5], [0.5, 0.5]], clean, corrupted))
    noisy = CausalMap(
        found.cells, True, (clean - corrupted, clean - corrupted - 0.25, clean - corrupted + 0.5), "S"
    )
    ends = "0.750 to 1.500" if clean else "0.500 to 1.250"
    told = findings.tell_total(noisy, "cat")
    assert told.text == f"Taking “cat” out of the prompt changes the S by 1.000 (95% interval {ends})."
    assert found.proportion and not told.weak


def test_without_a_whole_the_strongest_place_wins_and_nothing_is_half_of_it():
    windows = {"window": ["0-5", "6-11"]}
    found = CausalMap.of(cause([[0.2, 0.9], [-1.2, 0.1]], 0.0, 0.0, windows, spread=0.1))
    (told,) = findings.tell_denoiser(found)
    assert "layer 0 in steps 7–12" in told.text and "0.900" in told.text
    assert found.scale == ("change of the CLIP score of the pictures with the prompt", pytest.approx(1.2))
    empty = CausalMap(0 * found.cells, False, found.total, "S")
    assert empty.scale[1] == 1.0
    assert CausalMap.of(cause([[0.6, 0.9], [0.2, 0.1]])).scale == ("share of the effect", 1.0)


def test_a_whole_that_is_there_but_not_sure_is_still_what_to_come_near_to():
    """Few seeds make no total effect sure; a state that overshoots is not the one to edit for that."""
    found = CausalMap.of(cause([[0.8, 1.4], [0.2, 0.1]], spread=40.0))
    assert not found.proportion
    best = found.ranked().iloc[0]
    assert float(best["mean"]) == pytest.approx(0.8, abs=0.05)


def test_shares_are_of_the_whole_effect():
    found = CausalMap.of(cause([[0.9, 0.0], [0.3, 0.1]], clean=2.0))
    assert found.proportion and float(found.cells["mean"].max()) == pytest.approx(0.45)


def test_the_whole_effect_has_its_interval():
    planted = cause([[0.6, 0.9], [0.2, 0.1]], corrupted=0.5, spread=0.1)
    total = planted.total()
    assert CausalMap.of(planted).total == tuple(float(total[k]) for k in ("mean", "low", "high"))
    assert float(total["low"]) < float(total["high"])


def test_a_single_run_is_told_without_an_interval():
    found = CausalMap.of(cause([[0.6, 0.9], [0.2, 0.1]]))
    one = found.ranked().iloc[0].copy()
    one["low"] = one["high"] = float("nan")
    assert found.say(one) == "90%, a single run without an interval" and found.part == "text encoder"


def test_where_the_word_itself_is_best_nothing_else_is_said_of_it():
    said = findings.tell_text(CausalMap.of(cause([[0.9, 0.1], [0.0, 0.2]])), "cat")
    assert [text.text.split(",")[0] for text in said] == ["In the text encoder", "In all other layers"]
    assert "at “cat” brings back 90%" in said[0].text and "more than 20%" in said[1].text


def test_of_several_encoders_the_one_that_carries_most_is_named():
    found = CausalMap.of(cause([[0.6, 0.9], [0.2, 0.1]]))
    carried = {"text_encoder": 0.25, "text_encoder_2": 0.5, "text_encoder_3": 0.031}
    (told,) = findings.tell_encoders(carried, found)
    assert told.text == (
        "Restoring all that the second text encoder says brings back 50% of the effect "
        "(the text encoder: 25%, the third text encoder: 3.1%); its states are mapped below."
    )
    assert not told.weak and findings.tell_encoders({"text_encoder": 1.0}, found) == []
    (told,) = findings.tell_encoders(carried, CausalMap(found.cells, False, found.total, "S"))
    assert told.weak


def test_the_unet_sentence_counts_what_restores_more_than_half():
    found = CausalMap.of(cause([[0.6, 0.9], [0.4, 0.1]], columns={"window": ["0-5", "6-11"]}))
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


@pytest.mark.parametrize(
    ("before", "after", "weak"), [(6, 6, True), (7, 6, True), (0, 3, True), (0, 4, False), (5, 6, False)]
)
def test_an_edit_works_if_it_brings_more_than_before_and_half_of_all(before, after, weak):
    shown = {"generality": {"before": (before, 8), "after": (after, 8), "oracle": (8, 8)}}
    (told,) = findings.tell_effect(shown, "dog")
    assert told.weak == weak and told.text.startswith(f"In other wordings, {after} of 8 pictures")


def test_other_things_that_stay_as_they_were_are_no_bad_news():
    shown = {"specificity": {"before": (7, 9), "after": (7, 9), "oracle": (9, 9)}}
    assert not findings.tell_effect(shown, "dog")[0].weak


@pytest.mark.parametrize(
    ("edited", "others", "weak"), [(0.2, 0.1, False), (0.1, 0.1, True), (0.1, 0.2, True)]
)
def test_what_moved_is_told_of_both(edited, others, weak):
    told = findings.tell_moved(pd.Series({"efficacy": edited, "specificity": others}))
    assert told.weak == weak
    assert f"edited prompt by {edited:.1%}" in told.text and f"other things by {others:.1%}" in told.text


def test_nothing_is_not_told_as_less_than_nothing():
    assert [amount(x, True) for x in (-0.0001, 0.0001, -0.03, -0.3)] == ["0.0%", "0.0%", "-3.0%", "-30%"]


@pytest.mark.parametrize(("label", "words"), [("0-5", "steps 1–6"), ("3", "step 4")])
def test_windows_are_counted_from_one(label, words):
    assert plain_window(label) == words


def test_only_an_interval_that_leaves_out_zero_is_sure():
    nan = float("nan")
    intervals = [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1), (nan, nan)]
    assert [sure(*i) for i in intervals] == [True, True, False, False, False]
