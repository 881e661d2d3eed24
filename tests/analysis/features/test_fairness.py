"""Shares, how far they are from a target, and targets for single samples."""

from collections import Counter

import pytest
import torch

from denoscope.analysis import bias_score, fairness_discrepancy, stratified

HALF = {"woman": 0.5, "man": 0.5}


def test_equal_shares_are_no_discrepancy_and_one_class_is_the_largest():
    assert fairness_discrepancy(["a", "b", "c"] * 4).value == 0
    for k in (2, 3, 5):
        target = {str(i): 1 / k for i in range(k)}
        assert fairness_discrepancy(["0"] * 7, target).value == pytest.approx(((k - 1) / k) ** 0.5)


def test_counts_and_probabilities_agree_where_a_judge_is_certain():
    labels = ["woman"] * 3 + ["man"] * 5
    rows = torch.tensor([[float(x == c) for c in HALF] for x in labels])
    one, other = fairness_discrepancy(labels, HALF), fairness_discrepancy(rows, HALF)
    assert (one.value, one.low, one.high, one.shares) == (other.value, other.low, other.high, other.shares)
    unsure = fairness_discrepancy(0.5 * rows + 0.25, HALF)  # the mean probability counts
    assert unsure.value == pytest.approx(one.value / 2)


def test_a_fair_model_shows_its_chance_and_the_interval_holds_a_plain_bias():
    drawn = torch.Generator().manual_seed(0)
    found = [
        fairness_discrepancy([("a", "b")[i] for i in torch.randint(2, (50,), generator=drawn)], n_resamples=1)
        for _ in range(150)
    ]
    square = sum(f.value**2 for f in found) / len(found)
    assert square**0.5 == pytest.approx(found[0].chance, rel=0.2)
    biased = fairness_discrepancy(["woman"] * 160 + ["man"] * 40)
    assert biased.low < 0.3 * 2**0.5 < biased.high
    assert biased.low > biased.chance
    assert float(biased) == biased.value


def test_a_bias_score_sees_biases_that_cancel():
    two = {"a nurse": ["woman"] * 6, "a pilot": ["man"] * 6}
    assert bias_score(two, list(HALF)).value == 1
    assert fairness_discrepancy(["woman"] * 6 + ["man"] * 6).value == 0
    three = bias_score({"a cook": ["a", "a", "b", "c"]}, ["a", "b", "c"])
    assert three.value == pytest.approx((1 / 4 + 1 / 4 + 0) / 3)
    assert three.low <= three.value < three.high


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ([], None, "there are no labels"),
        (["man", "man"], None, "all labels are .*give target="),
        (["man", "woma"], HALF, "no class 'woma': leave .*, 0 for example; did you mean 'woman'"),
        (["man"], {"man": 0.7, "woman": 0.5}, "sum to 1"),
        (["man"], {"man": float("nan")}, "from 0 to 1"),
        (torch.tensor([[0.7, 0.7]]), HALF, "rows sum to 1"),
        (torch.tensor([[0.7, 0.3]]), {"a": 1.0}, "a target of as many classes"),
    ],
)
def test_what_makes_no_shares_is_refused(labels, target, message):
    with pytest.raises((ValueError, LookupError), match=message):
        fairness_discrepancy(labels, target)


def test_stratified_targets_are_exact():
    assert Counter(stratified(HALF, 30)) == {"woman": 15, "man": 15}
    assert Counter(stratified({"a": 0.5, "b": 0.3, "c": 0.2}, 7)) == {"a": 4, "b": 2, "c": 1}
    assert stratified(HALF, 30) == stratified(HALF, 30) != stratified(HALF, 30, seed=1)
    for wrong in ({}, {"a": 0.4}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(ValueError, match="sum to 1"):
            stratified(wrong, 3)
    with pytest.raises(ValueError, match="samples is 0"):
        stratified(HALF, 0)
