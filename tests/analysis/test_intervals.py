"""Bootstrap intervals: against scipy, against exact cases, and what they refuse."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from denoscope.analysis.intervals import bootstrap, proportion


def normal(*sizes: int, seed: int = 0) -> xr.DataArray:
    dims = ("prompt", "seed", "site")[: len(sizes)]
    return xr.DataArray(np.random.default_rng(seed).normal(size=sizes), dims=dims)


def test_one_dimension_agrees_with_scipy() -> None:
    values = normal(40)
    ours = bootstrap(values, ["prompt"], n_resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values.values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = values.std() / 40**0.5
    # two Monte Carlo estimates of one quantile: they differ by about 0.02 standard errors of the mean
    assert abs(ours["low"] - theirs.low) < 0.1 * spread
    assert abs(ours["high"] - theirs.high) < 0.1 * spread
    assert float(ours["mean"]) == pytest.approx(float(values.mean()), abs=1e-12)


def test_two_values_have_the_quantiles_of_a_coin() -> None:
    """Means of two draws from {0, 1} are 0, 1/2, 1 with chances 1/4, 1/2, 1/4: all quantiles are known."""
    values = xr.DataArray([0.0, 1.0], dims="seed")
    wide, narrow = (bootstrap(values, ["seed"], level=level) for level in (0.95, 0.3))
    assert (float(wide["low"]), float(wide["high"])) == (0.0, 1.0)
    assert (float(narrow["low"]), float(narrow["high"])) == (0.5, 0.5)


def test_crossed_dimensions_are_resampled_each_on_its_own() -> None:
    """Values that vary over prompts alone: more seeds must not narrow the interval."""
    per_prompt = normal(12)
    crossed = per_prompt.expand_dims(seed=50)
    one = bootstrap(per_prompt, ["prompt"], n_resamples=8000)
    both = bootstrap(crossed, ["prompt", "seed"], n_resamples=8000)
    wrong = scipy.stats.sem(crossed.values.ravel()) * 2 * 1.96
    assert float(both["high"] - both["low"]) == pytest.approx(float(one["high"] - one["low"]), rel=0.1)
    assert float(both["high"] - both["low"]) > 3 * wrong


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = []
    for seed in range(200):
        got = bootstrap(normal(30, seed=seed), ["prompt"], level=0.9, n_resamples=500)
        hits.append(float(got["low"]) <= 0 <= float(got["high"]))
    assert 0.80 <= np.mean(hits) <= 0.96  # nominal 0.90; 30 values fall a little short


def test_ratio_of_means_resamples_both_alike() -> None:
    """If every value is three times its denominator, the ratio is 3 without any doubt."""
    per = np.abs(normal(6, 4)) + 0.1
    got = bootstrap(3 * per, ["prompt", "seed"], denominator=per)
    assert np.allclose([got["mean"], got["low"], got["high"]], 3)


def test_ratio_is_one_of_means_not_a_mean_of_ratios() -> None:
    values, per = xr.DataArray([1.0, 3.0], dims="seed"), xr.DataArray([1.0, 7.0], dims="seed")
    assert float(bootstrap(values, ["seed"], denominator=per)["mean"]) == 0.5


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-50, 50), st.floats(0.1, 10))
def test_moves_and_scales_with_the_values(numbers: list[float], shift: float, factor: float) -> None:
    values = xr.DataArray(numbers, dims="seed")
    plain, moved = (bootstrap(v, ["seed"], n_resamples=64) for v in (values, factor * values + shift))
    for name in ("mean", "low", "high"):
        assert float(moved[name]) == pytest.approx(factor * float(plain[name]) + shift, abs=1e-6)
    assert plain["low"] - 1e-9 <= plain["mean"].clip(min(numbers), max(numbers)) <= max(numbers) + 1e-9


def test_same_seed_same_interval_and_dimensions_kept() -> None:
    values = normal(5, 3, 4)
    first, again = (bootstrap(values, ["prompt", "seed"]) for _ in range(2))
    xr.testing.assert_identical(first, again)
    assert first["low"].dims == ("site",)
    assert first.attrs == {"level": 0.95, "over": "prompt, seed", "n_resamples": 2000, "seed": 0}


def test_one_unit_has_a_mean_and_no_interval() -> None:
    got = bootstrap(normal(1, 1, 3), ["prompt", "seed"])
    assert got["mean"].notnull().all() and got["low"].isnull().all() and got["high"].isnull().all()


def test_one_prompt_many_seeds_has_the_interval_of_the_seeds() -> None:
    values = normal(1, 9)
    crossed = bootstrap(values, ["prompt", "seed"])
    alone = bootstrap(values.isel(prompt=0, drop=True), ["seed"])
    assert float(crossed["high"] - crossed["low"]) == pytest.approx(
        float(alone["high"] - alone["low"]), rel=0.15
    )


@pytest.mark.parametrize(
    ("over", "settings", "error", "words"),
    [
        (["prompts"], {}, LookupError, "no dimension 'prompts'; did you mean 'prompt'"),
        ([], {}, ValueError, "nothing to average"),
        (["seed"], {"level": 95}, ValueError, "level is 95; it lies between 0 and 1, like 0.95"),
        (["seed"], {"n_resamples": 0}, ValueError, "n_resamples is 0"),
    ],
)
def test_refuses_with_the_fix(over: list[str], settings: dict[str, float], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        bootstrap(normal(2, 3), over, **settings)


def test_refuses_no_values() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap(normal(0, 3), ["prompt"])


@given(right=st.integers(0, 12), extra=st.integers(0, 12))
def test_a_share_is_at_least_as_wide_as_wilson_and_as_the_bootstrap(right: int, extra: int) -> None:
    n = right + extra
    if n < 2:
        return
    values = xr.DataArray([1.0] * right + [0.0] * extra, dims="seed")
    got, drawn = proportion(values, ["seed"], n_resamples=200), bootstrap(values, ["seed"], n_resamples=200)
    wilson = scipy.stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert float(got["low"]) == pytest.approx(min(wilson.low, float(drawn["low"])), abs=1e-9)
    assert float(got["high"]) == pytest.approx(max(wilson.high, float(drawn["high"])), abs=1e-9)
    assert float(got["low"]) <= float(got["mean"]) <= float(got["high"])


def test_a_share_of_one_answer_has_no_interval_and_other_values_are_refused() -> None:
    assert np.isnan(float(proportion(xr.DataArray([1.0], dims="seed"), ["seed"])["low"]))
    with pytest.raises(ValueError, match="zeros and ones"):
        proportion(normal(4), ["prompt"])
