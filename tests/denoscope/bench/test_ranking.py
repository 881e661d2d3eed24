"""One number for each method, and the best one."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from statistics import harmonic_mean

import pandas as pd
import pytest

import denoscope
from denoscope.bench import METHODS, Best, EditBenchmark, best, ranked
from denoscope.bench import ranking as module
from denoscope.investigation.case import Case, prepare
from denoscope.investigation.stages.change import EDITS

WORTH = {"quickfix": (0.8, 0.6, 0.9), "uce": (0.9, 0.9, 0.9), "time": (1.0, 1.0, 1.0)}


def bench(worth=WORTH, concepts=20, refused=()):
    columns = [f"{p}_after" for p in module.PARTS]
    rows = [
        {"method": m, "concept": f"c{i}", "reason": "no" if m in refused and i % 2 else None}
        | dict(zip(columns, parts, strict=True))
        for m, parts in worth.items()
        for i in range(concepts)
    ]
    about = {"model": "emoji", "seeds": [0, 1]}
    return EditBenchmark(about, pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(), pd.DataFrame())


def test_the_score_is_the_harmonic_mean_of_three():
    frame = ranked(bench()).set_index("method")
    for name, parts in WORTH.items():
        assert frame.loc[name, ["score", "low", "high"]].tolist() == pytest.approx([harmonic_mean(parts)] * 3)
    assert list(frame.index) == ["time", "uce", "quickfix"] and frame.loc["time", "first"] == 1.0


def test_a_method_that_reaches_nothing_scores_nothing():
    assert ranked(bench({"uce": (0.0, 0.5, 1.0)}))["score"].tolist() == [0.0]


def test_a_method_that_refuses_much_is_not_ranked():
    assert list(ranked(bench(refused=["time"]))["method"]) == ["uce", "quickfix"]
    with pytest.raises(ValueError, match="no method takes 90% of the 20 concepts"):
        ranked(bench({"time": (1.0, 1.0, 1.0)}, refused=["time"]))


def test_the_best_of_those_that_an_investigation_offers():
    found = Best.of(bench(), EDITS)  # TIME is none of them
    assert (found.method, found.next, found.first, found.concepts, found.seeds) == (
        "uce",
        "quickfix",
        1.0,
        20,
        2,
    )
    why = found.why("emoji")
    assert "came first (clearly) in a benchmark of 20 concepts with 2 seeds each on emoji: 0.90" in why
    assert "next came quickfix with 0.74" in why and "Nobody" not in why
    assert found.why("my-model").endswith("Nobody has measured that on my-model")
    assert "in 60% of resamples" in replace(found, first=0.6).why("emoji")
    with pytest.raises(ValueError, match=r"only \['uce'\] of"):
        Best.of(bench({"uce": WORTH["uce"]}), EDITS)


def test_an_investigation_takes_the_best_and_says_why(monkeypatch):
    found = Best.of(bench(), EDITS)
    monkeypatch.setattr("denoscope.investigation.case.best", lambda _: found)
    case = Case("a noto emoji of a woman cook", "cook", "firefighter")
    setup = prepare(case)
    assert setup.method == setup.settings["method"] == "uce" and setup.why_method == found.why("emoji")
    named = replace(setup, case=replace(case, method="memit"))
    assert named.method == "memit" and not named.why_method


def test_without_a_benchmark_it_is_quickfix(monkeypatch):
    monkeypatch.setattr("denoscope.investigation.case.best", lambda _: None)
    setup = prepare(Case("a noto emoji of a woman cook", "cook", "firefighter"))
    assert setup.method == "quickfix" and not setup.why_method


def test_what_ships_is_a_method_that_is_offered():
    told = json.loads(files("denoscope.bench").joinpath("data", module.BEST).read_text())
    for name, kept in told.items():
        assert Best(**kept).model == name and kept["method"] in EDITS and kept["next"] in METHODS
        assert best(name) == Best(**kept)
    assert best("somebody's model") == best("emoji")
    assert denoscope.bench.best is best
