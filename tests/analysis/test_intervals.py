"""Intervals: against scipy, against the formula written out, by simulation, and what they refuse."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from denoscope.analysis.intervals import interval, proportion
from denoscope.analysis.scores import Scores

BOTH = ["prompt", "seed"]


def normal(*sizes: int, seed: int = 0) -> xr.DataArray:
    dims = ("prompt", "seed", "site")[: len(sizes)]
    return xr.DataArray(np.random.default_rng(seed).normal(size=sizes), dims=dims)


def halves(found: xr.Dataset) -> np.ndarray:
    low, high = (found["mean"] - found["low"]).values, (found["high"] - found["mean"]).values
    np.testing.assert_allclose(low, high, atol=1e-12)
    return np.asarray(high)


def test_one_dimension_is_students_interval() -> None:
    values = normal(7)
    ours = interval(values, ["prompt"], 0.9)
    theirs = scipy.stats.ttest_1samp(values.values, 0).confidence_interval(0.9)
    assert float(ours["low"]) == pytest.approx(theirs.low, abs=1e-12)
    assert float(ours["high"]) == pytest.approx(theirs.high, abs=1e-12)
    assert float(ours["mean"]) == pytest.approx(float(values.mean()), abs=1e-12)


def two_way(x: np.ndarray, level: float) -> float:
    """Half the width for prompts x seeds, as the textbook writes it."""
    p, s = x.shape
    rows, columns = x.mean(1) - x.mean(), x.mean(0) - x.mean()
    rest = x - x.mean(1)[:, None] - x.mean(0)[None] + x.mean()
    ms = {
        p - 1: s * (rows**2).sum() / (p - 1),
        s - 1: p * (columns**2).sum() / (s - 1),
        (p - 1) * (s - 1): (rest**2).sum() / ((p - 1) * (s - 1)),
    }
    assert len(ms) == 3  # all three degrees of freedom differ
    prompts, seeds, error = ms.values()
    total = prompts + seeds - error
    freedom = total**2 / sum(m**2 / df for df, m in ms.items())
    if total < max(prompts, seeds):
        total = max(prompts, seeds)
        freedom = p - 1 if prompts > seeds else s - 1
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total / (p * s)))


@pytest.mark.parametrize("seed", range(8))
def test_two_dimensions_follow_the_textbook(seed: int) -> None:
    """The seeds reach both cases: the sum of the parts, and one dimension that is more than it."""
    x = normal(4, 6, seed=seed) + 0.3 * normal(4, seed=seed + 50)
    got = interval(x, BOTH, 0.9)
    assert float(halves(got)) == pytest.approx(two_way(x.values, 0.9), rel=1e-9)


def test_three_dimensions_follow_inclusion_and_exclusion() -> None:
    x = np.random.default_rng(3).normal(size=(3, 4, 5)) + np.arange(3)[:, None, None]
    grand = x.mean()
    a, b, c = (x.mean(axes, keepdims=True) - grand for axes in ((1, 2), (0, 2), (0, 1)))
    ab, ac, bc = (
        x.mean(axis, keepdims=True) - grand - one - two
        for axis, one, two in ((2, a, b), (1, a, c), (0, b, c))
    )
    abc = x - grand - a - b - c - ab - ac - bc
    freedoms = np.array([2, 3, 4, 6, 8, 12, 24])
    parts = np.array([np.mean(e**2) for e in (a, b, c, ab, ac, bc, abc)]) / freedoms
    total = parts @ np.array([1, 1, 1, -1, -1, -1, 1])
    assert total > parts[:3].max()
    freedom = total**2 / (parts**2 / freedoms).sum()
    got = interval(xr.DataArray(x, dims=("prompt", "seed", "draw")), ["draw", "prompt", "seed"])
    assert float(halves(got)) == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * total**0.5, rel=1e-9)


def test_seeds_that_change_nothing_do_not_narrow_it() -> None:
    per_prompt = normal(12)
    one, both = interval(per_prompt, ["prompt"]), interval(per_prompt.expand_dims(seed=50), BOTH)
    assert float(halves(both)) == pytest.approx(float(halves(one)), rel=1e-9)


@pytest.mark.parametrize(("prompts", "seeds"), [(0.8, 0.1), (0.1, 0.8), (0.3, 0.3)])
def test_covers_the_truth_about_as_often_as_it_says(prompts: float, seeds: float) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(2000, *size)) for size in ((5, 1), (1, 4), (5, 4))]
    x = sum(w**0.5 * part for w, part in zip((prompts, seeds, 1 - prompts - seeds), parts, strict=True))
    got = interval(xr.DataArray(x, dims=("study", *BOTH)), BOTH, 0.9)
    assert 0.87 <= float(((got["low"] <= 0) & (got["high"] >= 0)).mean()) <= 0.97


def test_a_ratio_without_doubt_has_no_width() -> None:
    below = np.abs(normal(6, 4)) + 0.1
    got = interval(3 * below, BOTH, denominator=below)
    np.testing.assert_allclose([got["mean"], got["low"], got["high"]], 3, atol=1e-9)


def test_a_ratio_is_one_of_means_with_the_linearised_interval() -> None:
    values, below = xr.DataArray([1.0, 3.0, 5.0], dims="seed"), xr.DataArray([1.0, 7.0, 4.0], dims="seed")
    got = interval(values, ["seed"], denominator=below)
    assert float(got["mean"]) == pytest.approx(9 / 12)
    rest = (values.values - 0.75 * below.values) / 4
    half = scipy.stats.t.ppf(0.975, 2) * rest.std(ddof=1) / 3**0.5
    assert float(halves(got)) == pytest.approx(half, rel=1e-9)


def test_a_denominator_may_lack_a_dimension() -> None:
    values, below = normal(4, 3) + 5, np.abs(normal(4)) + 1
    wide = below.expand_dims(seed=3).transpose(*BOTH)
    a, b = (interval(values, BOTH, denominator=d) for d in (below, wide))
    xr.testing.assert_allclose(a, b)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-50, 50), st.floats(0.1, 10))
def test_moves_and_scales_with_the_values(numbers: list[float], shift: float, factor: float) -> None:
    values = xr.DataArray(numbers, dims="seed")
    plain, moved = (interval(v, ["seed"]) for v in (values, factor * values + shift))
    for name in ("mean", "low", "high"):
        assert float(moved[name]) == pytest.approx(factor * float(plain[name]) + shift, rel=1e-6, abs=1e-6)


def test_dimensions_are_kept_and_it_says_what_it_is() -> None:
    got = interval(normal(5, 3, 4), BOTH)
    assert got["low"].dims == ("site",)
    for i in range(4):  # each place by itself
        alone = interval(normal(5, 3, 4).isel(site=i), BOTH)
        assert float(got["high"][i]) == pytest.approx(float(alone["high"]), rel=1e-12)
    assert got.attrs == {"level": 0.95, "over": "prompt, seed", "method": "crossed t"}


def test_one_unit_has_a_mean_and_no_interval() -> None:
    got = interval(normal(1, 1, 3), BOTH)
    assert got["mean"].notnull().all() and got["low"].isnull().all() and got["high"].isnull().all()


def test_one_prompt_many_seeds_has_the_interval_of_the_seeds() -> None:
    values = normal(1, 9)
    alone = interval(values.isel(prompt=0, drop=True), ["seed"])
    xr.testing.assert_equal(interval(values, BOTH), alone)


def test_what_is_nan_stays_nan_there_and_nowhere_else() -> None:
    values = normal(3, 4, 2)
    values[1, 2, 0] = np.nan
    got, whole = interval(values, BOTH), interval(normal(3, 4, 2), BOTH)
    assert all(bool(got[k][0].isnull()) for k in ("mean", "low", "high"))
    xr.testing.assert_equal(got.isel(site=1), whole.isel(site=1))
    scores = Scores(
        values.assign_coords(site=["unet/mid.attn.0.0/cross_attn.out", "unet/mid.res.0/resid.post"])
    )
    assert scores.mean().isnull().values.tolist() == [True, False]
    assert scores.interval(over=["prompt"])["mean"].isnull().values.tolist() == [True, False]


@pytest.mark.parametrize(
    ("over", "settings", "error", "words"),
    [
        (["prompts"], {}, LookupError, "no dimension 'prompts'; did you mean 'prompt'"),
        ([], {}, ValueError, "nothing to average"),
        (["seed"], {"level": 95}, ValueError, "level is 95; it lies between 0 and 1, like 0.95"),
    ],
)
def test_refuses_with_the_fix(over: list[str], settings: dict[str, float], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        interval(normal(2, 3), over, **settings)


def test_refuses_no_values() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        interval(normal(0, 3), ["prompt"])


@given(right=st.integers(0, 12), extra=st.integers(0, 12), level=st.sampled_from([0.8, 0.95]))
def test_a_proportion_of_independent_answers_is_wilsons(right: int, extra: int, level: float) -> None:
    n = right + extra
    if n < 2:
        return
    got = proportion(xr.DataArray([1.0] * right + [0.0] * extra, dims="seed"), ["seed"], level)
    wilson = scipy.stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert float(got["low"]) == pytest.approx(wilson.low, abs=1e-9)
    assert float(got["high"]) == pytest.approx(wilson.high, abs=1e-9)
    assert float(got["low"]) <= float(got["mean"]) <= float(got["high"])


def test_answers_that_are_alike_count_as_few() -> None:
    """Eight seeds that always answer alike say no more than one: nearly the interval of four prompts."""
    answers = xr.DataArray([1.0, 1.0, 0.0, 1.0], dims="prompt")
    one, eight = proportion(answers, ["prompt"]), proportion(answers.expand_dims(seed=8), BOTH)
    independent = proportion(answers.expand_dims(seed=8).stack(all=BOTH), ["all"])
    widths = [float(x["high"] - x["low"]) for x in (one, eight, independent)]
    assert widths[1] > 0.9 * widths[0] > 1.5 * widths[2]


def test_a_proportion_of_one_answer_has_no_interval_and_other_values_are_refused() -> None:
    assert np.isnan(float(proportion(xr.DataArray([1.0], dims="seed"), ["seed"])["low"]))
    with pytest.raises(ValueError, match="zeros and ones"):
        proportion(normal(4), ["prompt"])
    with pytest.raises(ValueError, match="zeros and ones"):
        proportion(xr.DataArray([1.0, np.nan], dims="seed"), ["seed"])
