"""Pairs of words taken apart: identities, degenerate choices, planted truths, one bank for all pairs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import denoscope
from denoscope.analysis import Decomposition, mutual_information, pid
from denoscope.analysis.information.redundancy import PARTS, mixture, parts
from denoscope.analysis.information.words import Word, chosen_words, without
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser, two_by_two
from denoscope.models.synthetic.tiny import tiny_ddpm

FEW: dict[str, Any] = {"levels": 4}
WHOLE: dict[str, Any] = {"log_snr": (-8, 6), "levels": 24, "draws": 20, "batch": 8192}
LOG2 = float(np.log(2))
RULES: list[dict[str, Any]] = [
    {"redundancy": "min"},
    {"redundancy": "i_min"},
    {"redundancy": "finn_lizier", "log_prior": {"a": -1.0, "red": -5.0, "cat": -7.0}},
]


@pytest.fixture(scope="module")
def run(tiny: Any) -> Any:
    return denoscope.trace(tiny, ["a red cat", "a cat"], seeds=[0, 1], steps=2, guidance=1.0)


def holds(values: xr.DataArray) -> None:
    """R + U1 = I1, R + U2 = I2, R + U1 + U2 + S = I12."""
    r, u1, u2, s, i12, i1, i2 = (values.sel(part=name) for name in PARTS)
    for left, right in ((r + u1, i1), (r + u2, i2), (r + u1 + u2 + s, i12)):
        assert float(abs(left - right).max()) < 1e-6


@pytest.mark.parametrize("rule", RULES, ids=lambda r: str(r["redundancy"]))
@pytest.mark.parametrize("estimator", ["standard", "orthogonal"])
@pytest.mark.parametrize("given_rest", [False, True])
def test_the_parts_add_up_always(tiny: Any, run: Any, rule: Any, estimator: Any, given_rest: bool) -> None:
    found = pid(tiny, run, "a red cat", estimator=estimator, given_rest=given_rest, **rule, **FEW)
    priors = "log_prior" in rule
    for values in (found.nats, found.map) if priors else (found.nats, found.map, found.v_map):
        holds(values)
    assert bool(found.v_map.isnull().all()) is priors
    for part in ("total", "information 1", "information 2"):
        cells, whole = (v.sel(part=part) for v in (found.map.sum(("y", "x")), found.nats))
        assert cells.values == pytest.approx(whole.values, abs=1e-9)
    assert bool((found.stderr >= 0).all()) and not bool(found.nats.isnull().any())
    if estimator == "orthogonal" and rule["redundancy"] == "min":
        assert float(found.redundancy.min()) >= 0 and float(found.unique.min()) >= 0


def test_all_pairs_come_from_one_bank_and_equal_each_pair_by_itself(tiny: Any, run: Any) -> None:
    words = ["a", "red", "cat"]
    every = pid(tiny, run, "a red cat", **FEW)
    assert every.data.attrs["rows"] == 2 * (1 + 3 + 3) * 4 * 2  # images x conditions x levels x signs
    for pair in combinations(words, 2):
        one = pid(tiny, run, "a red cat", list(pair), **FEW)
        same = every.nats.sel(pair=" + ".join(pair)).values
        assert one.nats.isel(pair=0).values == pytest.approx(same, abs=1e-3)
    rest = pid(tiny, run, "a red cat", given_rest=True, **FEW)
    assert rest.data.attrs["rows"] == 2 * (1 + 3 + 3) * 4 * 2


def test_informations_are_those_of_mutual_information(tiny: Any, run: Any) -> None:
    found = pid(tiny, run, "a red cat", ["cat", "red"], given_rest=True, **FEW).nats
    assert found["pair"].values.tolist() == ["red + cat"]  # in the order of the prompt
    for part, text, rest in (
        ("information 1", "a red", "a"),
        ("information 2", "a cat", "a"),
        ("total", "a red cat", "a"),
    ):
        true = mutual_information(tiny, run, text, given=rest, **FEW).nats
        assert found.sel(part=part).values[:, 0] == pytest.approx(true.values, abs=1e-3)
    alone = pid(tiny, run, "a red cat", ["red", "cat"], **FEW).nats.sel(part="total").values[:, 0]
    assert alone == pytest.approx(mutual_information(tiny, run, "red cat", **FEW).nats.values, abs=1e-3)


def test_swapped_words_swap_what_is_unique() -> None:
    generator = torch.Generator().manual_seed(0)
    i1, i2, i12 = torch.randn(3, 50, generator=generator, dtype=torch.float64) * 3
    for h in (None, (2.0, 5.0)):
        here, there = parts(i1, i2, i12, h), parts(i2, i1, i12, None if h is None else (h[1], h[0]))
        assert torch.allclose(here, there[:, [0, 2, 1, 3, 4, 6, 5]])
        for second in (0, 1):
            follows = torch.isclose(here[:, 0] - (i1, i2)[second], (here[:, 0] - (i1, i2)[second])[0])
            mixed = mixture(second) @ torch.stack([i1, i2, i12])
            constant = here.T - mixed
            assert bool((constant[:, follows] - constant[:, follows][:, :1]).abs().max() < 1e-9)


def test_degenerate_choices() -> None:
    """What the rules do, rather than what they ought to."""
    i1, i2, i12 = (torch.tensor([v], dtype=torch.float64) for v in (3.0, 1.0, 3.5))
    equal = parts(i1, i2, i12, (9.0, 9.0))[0]  # equal priors: the larger one is redundant, one U is below 0
    assert equal[0] == 3 and equal[2] == -2
    apart = parts(i1, i2, i12, (12.0, 2.0))[0]  # priors far apart: all of the commoner word, whatever it says
    assert apart[0] == i2 and apart[2] == 0
    below = parts(i1, i2, torch.tensor([2.0], dtype=torch.float64), None)[0]
    assert below[0] == 1 and below[3] == -1  # synergy below 0: together they tell less than the better one
    alike = parts(i1, i1, i1, None)[0]
    assert alike[:4].tolist() == [3, 0, 0, 0]


def test_one_picture_has_no_expectation_and_many_have_the_mean_of_minima(tiny: Any, run: Any) -> None:
    """For one observed pair I_min is the point-wise minimum."""
    each = pid(tiny, run, "a red cat", **FEW)
    mean = pid(tiny, run, "a red cat", redundancy="i_min", **FEW)
    assert mean.nats.values[0] == pytest.approx(each.nats.mean("image").values)
    assert mean.stderr.values[0] == pytest.approx((each.nats.std("image", ddof=1) / 2**0.5).values)
    first = pid(tiny, run.images[:1], "a red cat", **FEW)
    one = pid(tiny, run.images[:1], "a red cat", redundancy="i_min", **FEW)
    assert one.nats.values == pytest.approx(first.nats.values)
    assert one.stderr.values == pytest.approx(first.stderr.values)


def mixture_of(values: list[tuple[float, float]], first: list[str], second: list[str]) -> Analytic:
    """Four points in the plane, and what two words say of each."""
    covs = torch.eye(2, dtype=torch.float64).expand(len(values), 2, 2) * 0.05
    weights, means = torch.ones(len(values), dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    return Analytic(AnalyticDenoiser(weights, means, covs, {"one": first, "two": second}))


def test_planted_synergy_redundancy_and_what_the_minimum_calls_redundant() -> None:
    # XOR: the picture shows whether the words agree, and neither word alone says so
    xor = mixture_of([(1, 0), (-1, 0), (-1, 0), (1, 0)], ["p", "p", "q", "q"], ["r", "s", "r", "s"])
    found = pid(xor, torch.tensor([[1.0, 0.0]]), "p r", **WHOLE)
    near(found.synergy, LOG2, found, "synergy")
    near(found.redundancy, 0, found, "redundancy")
    # a copy: both words say the same
    copy = mixture_of([(1, 0), (-1, 0)], ["p", "q"], ["r", "s"])
    found = pid(copy, torch.tensor([[1.0, 0.0]]), "p r", **WHOLE)
    near(found.redundancy, LOG2, found, "redundancy")
    assert float(abs(found.unique).max()) < 1e-9 and float(abs(found.synergy).max()) < 1e-9
    # independent words, equally telling: the minimum calls them redundant, and synergy makes up for it
    apart = Analytic(two_by_two(2.0, 0.2))
    found = pid(apart, torch.tensor([[-1.0, -1.0]]), "circle red", **WHOLE)
    near(found.redundancy, LOG2, found, "redundancy")
    near(found.synergy, LOG2, found, "synergy")
    near(found.total, 2 * LOG2, found, "total")
    where = found.map.isel(image=0, pair=0, y=0)  # cell by cell it tells them apart
    assert float(abs(where.sel(part="redundancy")).max()) < 0.1
    for part, at in (("unique 1", 0), ("unique 2", 1)):
        assert float(where.sel(part=part)[at]) > 0.4


def near(value: xr.DataArray, truth: float, found: Decomposition, part: str) -> None:
    error = max(3 * float(found.stderr.sel(part=part).squeeze()), 0.01)
    assert float(value.squeeze()) == pytest.approx(truth, abs=error) and error < 0.5


def test_words_are_found_numbered_and_left_out_in_their_places() -> None:
    text = "a cook and a cook with the Cook's red hat"
    every = [w.name for w in chosen_words("a cook and a cook", None)]
    assert every == ["a:1", "cook:1", "and", "a:2", "cook:2"]
    second, red = chosen_words(text, ["red hat", "cook:2"])
    assert (second.text, red.name) == ("cook", "red hat")
    assert without(text, [second, red]) == "a cook and a with the Cook's"
    assert without("red hot red dog", [Word("hot", "hot", 4, 7), Word("red:1", "red", 0, 3)]) == "red dog"


def test_wrong_words_and_priors_are_told(tiny: Any, run: Any) -> None:
    def wrong(error: type[Exception], message: str, *args: Any, **more: Any) -> None:
        with pytest.raises(error, match=message):
            pid(tiny, run, *args, **more, **FEW)

    wrong(NotFoundError, "'cta' is not in the prompt .* did you mean 'cat'", "a red cat", ["red", "cta"])
    wrong(UsageError, r"\['red'\] of 'a red cat' is no pair", "a red cat", ["red"])
    wrong(UsageError, "no pair", "cat")
    wrong(UsageError, "stands in 2 places .* name one: 'cook:1' or 'cook:2'", "cook a cook", ["a", "cook"])
    wrong(NotFoundError, "which holds 'cook' 2 times", "cook a cook", ["a", "cook:3"])
    wrong(UsageError, "'red' is named twice", "a red cat", ["red", "red"])
    wrong(UsageError, "'red cat' and 'cat' share letters", "a red cat", ["red cat", "cat"])
    wrong(UsageError, "redundancy is 'max'", "a red cat", redundancy="max")
    wrong(UsageError, "give log_prior", "a red cat", redundancy="finn_lizier")
    wrong(UsageError, "log_prior says nothing to", "a red cat", log_prior={"a": -1.0})
    some = {"a": -1.0, "red": -2.0}
    wrong(NotFoundError, "log_prior has no 'cat'", "a red cat", redundancy="finn_lizier", log_prior=some)
    wrong(UsageError, "it is log p", "a red cat", redundancy="finn_lizier", log_prior={**some, "cat": 0.5})
    ddpm = load(tiny_ddpm())
    with pytest.raises(UsageError, match="reads no text"):
        pid(ddpm, torch.rand(1, *ddpm.latent_shape), "a red cat")


def test_it_is_kept_shown_and_drawn(tiny: Any, run: Any, tmp_path: Path) -> None:
    found = pid(tiny, run, "a red cat", given_rest=True, **FEW)
    found.save(tmp_path / "pid.zarr")
    assert Decomposition.load(tmp_path / "pid.zarr").data.identical(found.data)
    assert found.unique.dims == ("image", "pair", "word") and found.total.dims == ("image", "pair")
    frame = found.to_frame()
    assert len(frame) == 6 and set(PARTS) < set(frame.columns)
    assert "given the rest" in repr(found) and "<table" in found._repr_html_()
    assert found.plot().data and len(found.plot("red + cat", image=1).data) == len(PARTS)
    with pytest.raises(NotFoundError, match="no pair 'red \\+ cta'; did you mean 'red \\+ cat'"):
        found.plot("red + cta")
    with pytest.raises(UsageError, match="image is 2"):
        found.plot(image=2)


@given(st.lists(st.sampled_from(["red", "cook", "a", "hat"]), min_size=2, max_size=7), st.data())
def test_what_is_left_of_a_prompt_is_its_other_words_in_order(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    i, j = data.draw(st.sets(st.integers(0, len(words) - 1), min_size=2, max_size=2).map(sorted))
    every = chosen_words(text, None)
    assert [w.text for w in every] == words and len({w.name for w in every}) == len(words)
    same = chosen_words(text, [every[j].name, every[i].name])
    assert same == [every[i], every[j]]
    assert without(text, same).split() == [w for k, w in enumerate(words) if k not in (i, j)]
