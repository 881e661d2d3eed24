"""Bias of words: a planted share is found by what the word tells, with the sign that the pictures make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import Counts, WordBias, count_labels, word_bias
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser

SHARES = {"pilot": 0.1, "cook": 0.35, "judge": 0.65, "singer": 0.9}
HOW: dict[str, Any] = {"template": "{attribute} {subject}", "steps": 8, "levels": 8, "batch": 8192}
SEEDS, OTHERS = range(8), range(100, 116)


@pytest.fixture(scope="module")
def biased() -> Analytic:
    """Jobs along the first coordinate, women above 0 in the second, as often as their job's share."""
    means = [[4.0 * j, side] for j in range(4) for side in (1.5, -1.5)]
    weights = [w for share in SHARES.values() for w in (share, 1 - share)]
    said = {"job": [s for s in SHARES for _ in (0, 1)], "gender": ["woman", "man"] * 4}
    covs = torch.eye(2, dtype=torch.float64).expand(8, 2, 2) * 0.1
    pair = (torch.tensor(v, dtype=torch.float64) for v in (weights, means))
    return Analytic(AnalyticDenoiser(*pair, covs, said))


def gender(points: torch.Tensor) -> list[str | None]:
    return ["woman" if p[1] > 0 else "man" for p in points]


@pytest.fixture(scope="module")
def found(biased: Analytic) -> WordBias:
    return word_bias(biased, list(SHARES), ["woman", "man"], seeds=SEEDS, **HOW)


@pytest.fixture(scope="module")
def counts(biased: Analytic) -> Counts:
    texts = {s: s for s in SHARES}
    return count_labels(biased, texts, gender, ["woman", "man"], seeds=OTHERS, steps=8, batch=64)


def test_measures_are_log_ratios_of_the_exact_densities(biased: Analytic, found: WordBias) -> None:
    run, d = denoscope.trace(biased, ["pilot"] * 8, seeds=SEEDS, steps=8), biased.denoiser
    x = run.latents
    plain, job = d.log_prob(x), d.log_prob(x, 0.0, [{"job": "pilot"}] * 8)
    woman = d.log_prob(x, 0.0, [{"gender": "woman"}] * 8)
    both = d.log_prob(x, 0.0, [{"job": "pilot", "gender": "woman"}] * 8)
    own = found.values.sel(pictures="neutral", subject="pilot", attribute="woman")
    told = own.sel(measure="conditional information").values
    men = x[:, 1].numpy() < 0
    assert men.sum() >= 5 and told[men].max() < -3  # of a man, "woman" misleads
    assert told == pytest.approx((both - job).numpy(), rel=0.5, abs=0.2)
    redundancy = torch.minimum(job - plain, woman - plain).numpy()
    assert np.sign(own.sel(measure="redundancy").values[men]).tolist() == np.sign(redundancy[men]).tolist()


def test_a_planted_bias_is_found_with_the_sign_of_its_pictures(found: WordBias, counts: Counts) -> None:
    shown = counts.shown.sel(attribute="woman").mean("seed").values
    assert (np.diff(shown) > 0).all() and counts.lean("woman", "man").mean("seed")[0] < -0.5
    for shares in (counts, {s: {"woman": v, "man": 1 - v} for s, v in SHARES.items()}):
        table = found.correlations(shares).set_index(["measure", "pictures", "attribute"])["rho"]
        told = table["conditional information"]
        assert min(told["neutral", "woman"], told["neutral", "man"]) >= 0.8  # what is painted is told
        assert max(told["named", "woman"], told["named", "man"]) <= -0.8  # what is usual needs no telling
        (lean,) = found.correlations(shares, contrast=("woman", "man")).query(
            "measure == 'conditional information' and pictures == 'neutral'"
        )["rho"]
        assert lean >= 0.8


def test_subjects_may_come_in_any_order(biased: Analytic, found: WordBias) -> None:
    again = word_bias(biased, ["singer", "pilot"], ["man", "woman"], seeds=SEEDS[:2], **HOW)
    same = found.values.sel(subject=["singer", "pilot"], attribute=["man", "woman"], seed=SEEDS[:2])
    assert again.values.values == pytest.approx(same.values, abs=1e-6)


def test_words_by_themselves_and_phrases(tiny: Any) -> None:
    how: dict[str, Any] = {"seeds": [0], "steps": 1, "levels": 4, "template": "a {subject} {attribute}"}
    rest = word_bias(tiny, ["cat"], {"hat": "and a hat"}, pictures=["named"], **how)
    alone = word_bias(tiny, ["cat"], {"hat": "and a hat"}, pictures=["named"], given_rest=False, **how)
    run = denoscope.trace(tiny, ["a cat and a hat"], seeds=[0], steps=1)
    texts = {
        True: {"": "a", "subject": "a cat", "attribute": "a and a hat", "both": "a cat and a hat"},
        False: {"": "", "subject": "a cat", "attribute": "and a hat", "both": "a cat and a hat"},
    }
    for result, conditions in ((rest, texts[True]), (alone, texts[False])):
        bank = denoscope.probes.denoising_errors.error_bank(tiny, run, conditions, levels=4)
        own, other, more = (
            float(bank.integral(bank.densities(*pair))[0])
            for pair in (("subject", ""), ("attribute", ""), ("both", "subject"))
        )
        redundancy, _, conditional = result.values.squeeze().values
        assert redundancy == pytest.approx(min(own, other), abs=1e-6)
        assert conditional == pytest.approx(more, abs=1e-6)


def test_it_is_kept_shown_and_drawn(found: WordBias, counts: Counts, tmp_path: Path) -> None:
    for result in (found, counts):
        result.save(tmp_path / type(result).__name__)
        again = type(result).load(tmp_path / type(result).__name__)
        assert again.data.identical(result.data)
        assert "pilot" in again._repr_html_()
    assert "4 subjects x woman, man; 8 seeds" in repr(found) and "woman" in repr(counts)
    assert {"mean", "low", "high"} < set(found.to_frame()) and len(counts.to_frame()) == 8
    drawn = found.plot(counts, "woman")
    assert [row[0] for row in drawn.layout.meta["table"]["rows"]] == list(SHARES)
    bars = counts.plot().data
    assert [b.name for b in bars] == ["woman", "man"] and list(bars[0].y) == list(SHARES)


def test_wrong_arguments_are_told(biased: Analytic, found: WordBias, counts: Counts) -> None:
    def wrong(error: type[Exception], message: str, **more: Any) -> None:
        given: dict[str, Any] = {"subjects": ["pilot"], "attributes": ["woman"], "seeds": [0], **HOW, **more}
        with pytest.raises(error, match=message):
            word_bias(biased, **given)

    wrong(UsageError, "subjects is empty", subjects=[])
    wrong(UsageError, "attributes hold 'man' more than once", attributes=["woman", "man", "man"][1:])
    wrong(UsageError, "needs {attribute} and {subject} once", template="a {subject}")
    wrong(UsageError, "has other places", template="{attribute} {subject} {where}")
    wrong(UsageError, "stands in 2 places", template="pilot {attribute} {subject}")
    wrong(UsageError, r"pictures\[0\] is 'real'; it is 'neutral' or 'named'", pictures=["real"])
    same = count_labels(biased, {s: s for s in SHARES}, gender, ["woman", "man"], seeds=[3], steps=1)
    with pytest.raises(UsageError, match=r"measured and counted on the same seeds, \[3\].*range\(8, 9\)"):
        found.correlations(same)
    with pytest.raises(UsageError, match="2 measured subjects have a share of 'woman'"):
        found.correlations({s: {"woman": 0.5, "man": 0.5} for s in ("cook", "pilot")})
    with pytest.raises(NotFoundError, match="no attribute 'women'; did you mean 'woman'"):
        found.lean("women", "man")
    with pytest.raises(UsageError, match="it is two attributes"):
        found.correlations(counts, contrast=("man", "man"))
    with pytest.raises(NotFoundError, match="measure is 'redundant'; did you mean 'redundancy'"):
        found.plot(counts, "woman", "redundant")
    with pytest.raises(UsageError, match="label gave 1 answers for 4 pictures"):
        count_labels(biased, {s: s for s in SHARES}, lambda _: ["man"], ["man"], seeds=[0], steps=1)
    with pytest.raises(UsageError, match="give at least one of each"):
        count_labels(biased, {}, gender, ["man"], seeds=[0])
