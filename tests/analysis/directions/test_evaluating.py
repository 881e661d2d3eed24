"""Units, detection and steering, on what is known: a metric that is the channel that a direction moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from denoscope import Direction, When, trace
from denoscope.analysis import Steering, calibrated, evaluate_direction, score_direction, token_direction
from denoscope.analysis.directions.scoring import auc
from denoscope.editing import freeze
from denoscope.models.site import Site

OUT = Site("unet/out/eps")
PROMPTS = ["a cat", "a dog"]
RUN = {"seeds": [0, 1], "steps": 3}


def first_channel(outcome):
    """How much of the first latent channel there is."""
    return -outcome.latents[:, 0].flatten(1).mean(1)


def spread(outcome):
    return outcome.latents[:, 1].flatten(1).std(1)


def blind(outcome):
    return torch.zeros(len(outcome.latents))


@pytest.fixture
def output():
    """The network's output moves the latents along it: one channel of it moves that channel."""
    return Direction(OUT, torch.tensor([1.0, 0, 0, 0]))


def test_strength_one_is_one_unit(tiny, output):
    unit = calibrated(tiny, output, PROMPTS, metric=first_channel, unit=0.5, **RUN)
    before, after = (
        -trace(tiny, PROMPTS, interventions=i, **RUN).latents[:, 0].mean() for i in ((), [unit.steer(1.0)])
    )
    assert float(after - before) == pytest.approx(0.5, rel=0.1)
    assert unit.about["unit"]["size"] == 0.5 and unit.about["effect"]["low"] > 0
    turned = calibrated(tiny, -output, PROMPTS, metric=first_channel, unit=0.5, **RUN)
    assert turned.cosine(unit) == pytest.approx(1)
    with pytest.raises(ValueError, match="changes blind by 0 .*there is no unit of that"):
        calibrated(tiny, output, PROMPTS, metric=blind, **RUN)
    with pytest.raises(ValueError, match="give finite ones other than 0"):
        calibrated(tiny, output, PROMPTS, metric=first_channel, strengths=[0.0], **RUN)


def test_detecting_and_steering_are_two_numbers(tiny, output):
    """A direction that the classes lie along and that moves nothing, and one the other way round."""
    pair = {"positive": ["a red cat"], "negative": ["a blue cat"], "seeds": [0, 1, 2], "steps": 2}
    text = token_direction(tiny, ["a red cat"], ["a blue cat"], "cat")
    told = score_direction(tiny, text, metric=blind, subject="cat", **pair)
    assert told.auc == 1.0 and told.effect == 0.0 and told.samples == 3
    moves = score_direction(tiny, 5 * output, metric=first_channel, **pair)
    assert abs(moves.effect) > 0.05 and moves.effect_low * moves.effect_high > 0
    assert list(moves.to_frame().index) == ["detects", "steers"] and "steers" in moves._repr_html_()
    turned = score_direction(tiny, -text, metric=blind, subject="cat", **pair)
    assert turned.auc == 0.0


def test_auc_counts_pairs():
    source = np.random.default_rng(0)
    a, b = source.integers(0, 4, 7).astype(float), source.integers(0, 4, 5).astype(float)
    slow = np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b])
    assert auc(a, b) == pytest.approx(slow)


def test_a_metric_follows_the_strength_and_others_stay(tiny, output, tmp_path):
    other = Direction("unet/mid.attn.0.0/cross_attn.out", torch.ones(16))
    edit = freeze(tiny, other.steer(3.0, When(branch=None)))
    found = evaluate_direction(
        tiny,
        output,
        PROMPTS,
        metrics={"first": first_channel, "blind": blind},
        strengths=[-1.0, 1.0, 2.0],
        beside={"words": ["a red cat", "a red dog"], "edit": edit},
        **RUN,
    )
    frame = found.monotone().set_index(["way", "metric"])
    row = frame.loc["direction", "first"]
    assert row["spearman"] == 1.0 and row["effect low"] > 0
    assert frame.loc["direction", "blind"]["spearman"] == 0.0
    assert frame.loc["random 0", "first"]["effect"] < row["effect"]
    changes = found.changes(1.0).set_index(["way", "metric"])["mean"]
    assert set(changes.index.get_level_values("way")) == {"direction", "random 0", "words", "edit"}
    each = [[t for t in texts for _ in range(2)] for texts in (PROMPTS, ["a red cat", "a red dog"])]
    slow = [trace(tiny, t, seeds=[0, 1] * 2, steps=3).latents[:, 0].mean() for t in each]
    assert changes["words", "first"] == pytest.approx(float(slow[0] - slow[1]), abs=1e-4)
    assert changes["edit", "first"] != 0
    found.save(tmp_path / "s.zarr")
    assert Steering.load(tmp_path / "s.zarr").data.broadcast_equals(found.data)
    assert found._repr_html_().count("<tr") == len(found.to_frame()) + 1
    with pytest.raises(LookupError, match="strength 3.0 was not tried"):
        found.changes(3.0)


def test_what_cannot_be_evaluated_is_refused(tiny, output):
    kinds = {"metrics": {"first": first_channel}, **RUN}
    with pytest.raises(ValueError, match="give a finite one other than 0"):
        evaluate_direction(tiny, output, PROMPTS, strengths=[float("nan")], **kinds)
    with pytest.raises(ValueError, match="reach past the run"):
        evaluate_direction(tiny, output, PROMPTS, when=When(steps=[5]), **kinds)
    with pytest.raises(ValueError, match="'plain' is the picture that nothing steers"):
        evaluate_direction(tiny, output, PROMPTS, beside={"plain": PROMPTS}, **kinds)
    with pytest.raises(ValueError, match="give one text for each of 2 prompts, or an edit"):
        evaluate_direction(tiny, output, PROMPTS, beside={"words": ["a"]}, **kinds)
    with pytest.raises(ValueError, match="has 3 channels, but axis"):
        evaluate_direction(tiny, Direction(OUT, torch.ones(3)), PROMPTS, **kinds)
    text = token_direction(tiny, ["a red cat"], ["a blue cat"], "cat")
    with pytest.raises(ValueError, match="whose attribute in 'a cat' is meant was not said"):
        evaluate_direction(tiny, text, PROMPTS, **kinds)
    with pytest.raises(ValueError, match="1 subjects for 2 prompts"):
        evaluate_direction(tiny, text, PROMPTS, subject=["cat"], **kinds)
