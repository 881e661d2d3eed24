"""Rank correlations: scipy's, ties, no order, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from denoscope.analysis.word_experiments.ranking import rank_correlation, resampled_correlation
from denoscope.models.errors import UsageError


def test_it_is_spearmans_with_ties_and_row_by_row() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 6, 9)).astype(float)
    assert rank_correlation(x, y) == pytest.approx([spearmanr(a, b)[0] for a, b in zip(x, y, strict=True)])
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


def test_order_is_all_that_counts_and_units_may_come_in_any_order() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 12))
    rho = rank_correlation(x, y)
    assert rank_correlation(np.exp(x), y**3) == pytest.approx(rho)
    assert rank_correlation(x, -y) == pytest.approx(-rho)
    mixed = rng.permutation(12)
    assert rank_correlation(x[mixed], y[mixed]) == pytest.approx(rho)


def test_intervals_hold_a_planted_correlation_and_nothing_holds_zero() -> None:
    rng = np.random.default_rng(2)
    held = {"planted": 0, "nothing": 0}
    for _ in range(60):
        x, noise = rng.standard_normal((2, 20))
        for name, rho in (("planted", 0.7), ("nothing", 0.0)):
            y = rho * x + (1 - rho**2) ** 0.5 * noise
            truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a Gaussian pair
            _, low, high = resampled_correlation(x, y, n_resamples=300)
            held[name] += low <= truth <= high
    assert min(held.values()) >= 50  # of 60: some 54 of a true 92 %


def test_one_unit_that_carries_all_is_not_sure() -> None:
    """A third of the draws miss it."""
    x, one = np.arange(20.0), np.eye(20)[-1]
    rho, low, high = resampled_correlation(x, one)
    assert low == 0 < rho < high
    assert all(np.isnan(v) for v in resampled_correlation(x, np.zeros(20)))


def test_too_few_units_have_no_interval_and_wrong_settings_are_told() -> None:
    rho, low, high = resampled_correlation(np.arange(2.0), np.arange(2.0))
    assert rho == 1 and np.isnan(low) and np.isnan(high)
    with pytest.raises(UsageError, match="level is 2"):
        resampled_correlation(np.arange(4.0), np.arange(4.0), level=2)
