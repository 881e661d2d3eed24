"""All changes side by side: shares with intervals, which is best, and how sure that is."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from denoscope.analysis.intervals import proportion
from denoscope.report.changes import NOTHING, OUTRIGHT, Changes
from denoscope.report.paired import ahead

KINDS = ["efficacy", "generality", "specificity", "specificity", "robustness"]
SEEDS = 4


def changes(hits, goal="change_to", judged=1, colour=0.0, skipped=(), deep=None):
    """A table of hits [kind ...] by name: how many of four seeds show it, prompt by prompt."""
    names = list(hits)
    hit = np.array([[[1.0] * n + [0.0] * (SEEDS - n) for n in rows] for rows in hits.values()])
    hit = hit if judged else np.full_like(hit, np.nan)
    dims = ("change", "prompt", "seed")
    data = xr.Dataset(
        {
            "hit": (dims, hit),
            "fit": (dims, hit.copy()),
            "moved": (dims, hit),
            "colour": (dims, hit * 0 + colour),
            "depth": (("change", "asked", "seed"), hit[:, :1] * 0.5),
        },  # fmt: skip
        {"change": names, "seed": range(SEEDS), "kind": ("prompt", KINDS)},
        {"goal": goal, "goal_said": "it is so", "judged": judged},
    )
    for name, depth in (deep or {}).items():
        data["depth"].loc[name] = depth
    if not judged:
        data["colour"] = data["colour"].fillna(colour)
    told = {"analysis": "mediation", "why": "so", "rows": 7, "size": 3, "where": "unet"}
    return Changes(data, {n: told for n in names if n not in (NOTHING, OUTRIGHT)}, tuple(skipped))


HITS = {
    NOTHING: [0, 0, 4, 4, 0],
    OUTRIGHT: [4, 4, 4, 4, 4],
    "strong": [4, 3, 2, 2, 4],
    "clean": [3, 3, 4, 4, 3],
    "idle": [0, 0, 4, 4, 0],
}


def test_shares_are_wilsons_over_prompts_and_seeds():
    found = changes(HITS)
    frame = found.to_frame().set_index("change")
    assert frame.loc["strong", ["efficacy", "generality", "specificity"]].tolist() == [1.0, 0.75, 0.5]
    own = proportion(found.data["hit"].sel(change="clean")[:1], ["prompt", "seed"])
    assert frame.loc["clean", ["efficacy_low", "efficacy_high"]].tolist() == [own["low"], own["high"]]
    assert frame.loc["strong", ["rows", "size", "where"]].tolist() == [7, 3, "unet"]
    assert frame.loc[NOTHING, "rows"] == 0 and frame["unmoved"].tolist() == [1.0] * 5
    assert changes(HITS, colour=11.0).to_frame()["unmoved"].tolist() == [0.0] * 5


def test_the_best_reaches_much_and_keeps_much():
    found = changes(HITS)
    assert found.scores == {"strong": 0.5, "clean": 0.75, "idle": 0.0} and found.best == "clean"
    assert "“clean” has the largest efficacy times specificity: 75% reached (0% with nothing done), 100%" in (
        found.why
    )
    assert (
        "Its interval overlaps those of 2 of 2 others, and that of doing nothing." in found.why
        and "flatter it" in found.why
    )


def test_of_equals_the_deepest_is_best_and_then_the_one_that_fits():
    equal = {
        NOTHING: HITS[NOTHING],
        "first": [4, 4, 4, 4, 4],
        "second": [4, 4, 4, 4, 4],
        "less": [3, 4, 4, 4, 4],
    }
    plain = changes(equal)
    assert plain.best == "first" and "; 1 other came to as much" in plain.why
    deeper = changes(equal, deep={"first": 0.2, "second": 0.7, "less": 0.9})
    assert deeper.best == "second" and "; of 2 with as much, it goes deepest (0.70)" in deeper.why
    unknown = changes(equal, deep=dict.fromkeys(equal, np.nan))
    assert unknown.best == "first" and "came to as much" in unknown.why
    assert deeper.ranked == ["second", "first", "less"]
    fits = changes(equal)
    fits.data["fit"].loc["first"] = 0.4
    assert fits.best == "second" and "; of 2 with as much, it fits its text best (1.00)" in fits.why


def test_seed_by_seed_few_seeds_say_nothing_and_many_say_who_is_ahead(monkeypatch):
    few = changes(HITS)
    assert "4 seeds are too few to tell it from 2 others seed by seed" in few.why  # 2 * 2 ** -4 is .125
    monkeypatch.setattr("tests.denoscope.report.test_changes_table.SEEDS", 8)
    many = changes({
        NOTHING: [0, 0, 8, 8, 0], "full": [8, 8, 8, 8, 8], "near": [7, 8, 8, 8, 7], "idle": [0, 0, 8, 8, 0]
    })  # fmt: skip
    frame = many.ahead.set_index("change")
    assert frame["difference"].to_dict() == {"near": 0.125, "idle": 1.0}
    assert frame.loc["idle", "p"] == pytest.approx(2 * 2**-8) and frame.loc["near", "p"] == pytest.approx(0.5)
    assert "Seed by seed it is ahead of 1 of 2 others" in many.why
    assert changes(HITS, goal="balance").ahead.empty and changes(HITS, judged=0).ahead.empty


def test_one_seed_cannot_say():
    frame = ahead("a", {"a": np.ones(1), "b": np.zeros(1)})
    assert frame["p"].tolist() == [1.0] and frame["difference"].tolist() == [1.0]


def test_the_test_of_signs_holds_its_level():
    rng = np.random.default_rng(0)
    wrong = sum(
        (ahead("a", {n: rng.integers(0, 2, 8).astype(float) for n in "abc"})["p"] <= 0.05).any()
        for _ in range(200)
    )
    assert wrong <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_what_stands_beside_is_never_the_best_and_none_may_be():
    assert changes({k: HITS[k] for k in (NOTHING, OUTRIGHT)}).best is None
    none = changes({k: HITS[k] for k in (NOTHING, OUTRIGHT, "idle")})
    assert (
        none.best is None and none.why == "Under no change it is so in any of these pictures, all else kept."
    )


def test_of_a_balance_halves_are_best_and_its_interval_holds_both_sides():
    hits = {
        NOTHING: [4, 4, 4, 4, 4],
        "even": [2, 2, 4, 4, 2],
        "over": [0, 0, 4, 4, 0],
        "near": [3, 2, 4, 4, 3],
    }
    frame = changes(hits, goal="balance").to_frame().set_index("change")
    assert frame["efficacy"].tolist() == [0.0, 1.0, 0.0, 0.5]
    share = proportion(changes(hits).data["hit"].sel(change="near")[:1], ["prompt", "seed"])
    low, high = float(share["low"]), float(share["high"])
    assert frame.loc["near", "efficacy_low"] == pytest.approx(min(1 - abs(2 * v - 1) for v in (low, high)))
    assert frame.loc["near", "efficacy_high"] == (1.0 if low <= 0.5 else pytest.approx(2 * (1 - low)))
    assert changes(hits, goal="balance").best == "even"


def test_without_a_judge_nobody_says_which_is_best():
    found = changes(HITS, judged=0)
    assert found.best is None and "nobody can say which change is best" in found.why
    assert found.to_frame()["efficacy"].isna().all() and math.isnan(found.scores["clean"])


def test_it_is_written_for_other_programs(tmp_path):
    found = changes(HITS)
    frame = pd.read_parquet(found.to_parquet(tmp_path / "t.parquet"))
    pd.testing.assert_frame_equal(frame, found.to_frame(), check_dtype=False)
