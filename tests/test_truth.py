"""How the benchmark of planted truth scores a ranking: on rankings whose score is known."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import truth  # noqa: E402

from denoscope.editing.planting.places import Truth  # noqa: E402
from denoscope.models.site import Site  # noqa: E402


def asked(*sites: str, token: str | None = None) -> Any:
    where = Truth(tuple(map(Site, sites)), token)
    return SimpleNamespace(question=SimpleNamespace(truth=where))


SITES = [f"unet/mid.res.{i}/resnet.out" for i in range(10)]


def test_a_perfect_ranking_and_its_reverse() -> None:
    scores = {(site,): -float(i) for i, site in enumerate(SITES)}
    best = truth.judged(asked(SITES[0]), scores)
    assert (best["top 1"], best["top 3"], best["area"]) == (1, 1, 1)
    assert (best["chance 1"], best["candidates"]) == (0.1, 10)
    assert best["chance 3"] == pytest.approx(0.3)
    last = truth.judged(asked(SITES[9]), scores)
    assert (last["top 1"], last["top 3"], last["area"]) == (0, 0, 0)
    third = truth.judged(asked(SITES[2], SITES[9]), scores)
    assert (third["top 1"], third["top 3"]) == (0, 1)
    assert third["area"] == pytest.approx((6 + 0) / 8 / 2 + (0) / 16)


def test_a_method_that_says_nothing_is_at_chance_and_no_number_is_last() -> None:
    assert truth.judged(asked(SITES[4]), {(s,): 0.0 for s in SITES})["area"] == 0.5
    scores = {(s,): math.nan if s == SITES[4] else 0.0 for s in SITES}
    assert truth.judged(asked(SITES[4]), scores)["area"] == 0


def test_a_token_counts_where_one_was_planted() -> None:
    scores = {(SITES[0], "subject"): 2.0, (SITES[0], "pad"): 1.0, (SITES[1], "pad"): 0.0}
    found = truth.judged(asked(SITES[0], token="pad"), scores)
    assert (found["top 1"], found["top 3"], found["area"]) == (0, 1, 0.5)


def test_the_summary_has_a_line_for_each_method() -> None:
    row = {"kind": "fact", "place": 0, "asked": "", "method": "m", "rows": 1234, "seconds": 1.0}
    row |= {"top 1": 1.0, "top 3": 1.0, "area": 0.75, "chance 1": 0.1, "chance 3": 0.3, "candidates": 10}
    other = {**row, "place": 1, "top 1": 0.0}
    line = truth.summary(pd.DataFrame([row, other])).splitlines()[-1]
    assert line.startswith("| fact | m | 2 | 10 | 0.50 [")
    assert line.endswith("| 1,234 |")


def test_a_question_without_a_name_is_read_as_it_was_written(tmp_path: Path) -> None:
    pd.DataFrame({"kind": ["fact"], "asked": [""], "area": [0.5]}).to_csv(tmp_path / "truth.csv", index=False)
    assert truth.read(tmp_path / "truth.csv")["asked"].tolist() == [""]
