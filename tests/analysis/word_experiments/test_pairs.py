"""Kinds of pairs: planted synergy and planted copies are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from denoscope.analysis import PairKinds, pair_kinds
from denoscope.analysis.word_experiments.pairs_result import _welch
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser

KINDS = {
    "agree": [("p r", "p", "r"), ("q s", "q", "s"), ("p s", "p", "s")],
    "copies": [("c d", "c", "d"), ("e f", "e", "f")],
}
LOG2 = float(np.log(2))
HOW: dict[str, Any] = {"seeds": range(2), "steps": 6, "levels": 12, "draws": 4, "batch": 8192}


@pytest.fixture(scope="module")
def model() -> Analytic:
    """The first coordinate shows whether p and r agree, the second one shows c, of which d is a copy."""
    cells = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    means = torch.tensor([[2.0 * (a == b) - 1, 2.0 * c - 1] for a, b, c in cells], dtype=torch.float64)
    said = {
        "one": ["pq"[a] for a, _, _ in cells],
        "two": ["rs"[b] for _, b, _ in cells],
        "three": ["ce"[c] for *_, c in cells],
        "four": ["df"[c] for *_, c in cells],
    }
    covs = torch.eye(2, dtype=torch.float64).expand(8, 2, 2) * 0.05
    return Analytic(AnalyticDenoiser(torch.ones(8, dtype=torch.float64), means, covs, said))


@pytest.fixture(scope="module")
def found(model: Analytic) -> PairKinds:
    return pair_kinds(model, KINDS, **HOW)


def test_planted_kinds_are_told_apart(found: PairKinds) -> None:
    told = found.summary().set_index(["kind", "part"])
    for kind, part, truth in (
        ("agree", "synergy", LOG2),
        ("agree", "redundancy", 0),
        ("copies", "synergy", 0),
        ("copies", "redundancy", LOG2),
    ):
        assert told.loc[(kind, part), "mean"] == pytest.approx(truth, abs=0.3)  # apart from 0 by twice that
    assert told.loc[("copies", "redundancy"), "share"] == pytest.approx(1)
    apart = found.contrasts().set_index("part")
    assert apart.loc["synergy", "low"] > 0.1 and apart.loc["redundancy", "high"] < -0.1
    assert apart.loc["synergy", "difference"] == pytest.approx(
        told.loc[("agree", "synergy"), "mean"] - told.loc[("copies", "synergy"), "mean"]
    )


def test_words_of_a_pair_may_be_named_in_any_order(model: Analytic, found: PairKinds) -> None:
    turned = {k: [(p, b, a) for p, a, b in reversed(some[:1])] for k, some in KINDS.items()}
    again = pair_kinds(model, turned, **HOW)
    same = found.nats.sel(pair=again.nats["pair"])
    assert again.nats.values == pytest.approx(same.values, abs=1e-9)


def test_cells_of_informations_add_up_to_the_picture(found: PairKinds) -> None:
    for part in ("total", "information 1", "information 2"):
        whole, cells = (v.sel(part=part).values for v in (found.nats, found.cells))
        assert cells == pytest.approx(whole, abs=1e-9)


def test_the_interval_of_a_contrast_is_welchs() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 7, 3))
    theirs = ttest_ind(x[:5], y, equal_var=False).confidence_interval(0.9)
    ours = np.array(_welch(x[:5], y, 0.9))
    assert ours[:, 1] == pytest.approx(theirs.low) and ours[:, 2] == pytest.approx(theirs.high)
    assert np.isnan(_welch(x[:1], y, 0.9)[0][1])


def test_it_is_kept_and_shown(found: PairKinds, tmp_path: Path) -> None:
    found.save(tmp_path / "pairs")
    again = PairKinds.load(tmp_path / "pairs")
    assert again.data.identical(found.data) and "3 agree, 2 copies; 2 seeds" in repr(again)
    assert "copies" in again._repr_html_()
    assert set(again.to_frame()["prompt"]) == {p for some in KINDS.values() for p, *_ in some}
    drawn, told = again.plot(), again.summary().set_index(["kind", "part"])
    for kind, part, mean, *_ in drawn.layout.meta["table"]["rows"]:
        assert mean == told.loc[(kind, part), "mean"]
    colours = [bar.marker.color for bar in drawn.data]
    assert [bar.name for bar in drawn.data] == ["redundancy", "unique 1", "unique 2", "synergy", "total"]
    assert len(set(colours)) == len(colours)


def test_wrong_arguments_are_told(model: Analytic) -> None:
    def wrong(error: type[Exception], message: str, kinds: Any) -> None:
        with pytest.raises(error, match=message):
            pair_kinds(model, kinds, **HOW)

    wrong(UsageError, "give at least one pair of each", {})
    wrong(UsageError, "give at least one pair of each", {"agree": []})
    wrong(NotFoundError, "'x' is not in the prompt", {"agree": [("p r", "p", "x")]})
    wrong(UsageError, "more than once", {"agree": [("p r", "p", "r")], "copies": [("p r", "r", "p")]})
    one = pair_kinds(model, {"agree": KINDS["agree"][:1]}, **{**HOW, "levels": 4, "draws": 1})
    with pytest.raises(UsageError, match="there is one kind, 'agree'"):
        one.contrasts()
