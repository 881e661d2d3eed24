"""Learned weights of levels: a planted level is found, and they never meet what they know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import StepWeights, classify, learn_weights
from denoscope.analysis.classification.learning import _accuracy, _fitted
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.analytic import Analytic, two_by_two

TEXTS = ["a cat", "a dog"]


@pytest.fixture(scope="module")
def run(tiny: Any) -> Any:
    return denoscope.trace(tiny, TEXTS * 3, seeds=range(6), steps=2, guidance=1.0)


def planted(n: int, seed: int) -> np.ndarray[Any, Any]:
    """Level 1 tells the right prompt, level 2 is noise, ten times louder, level 3 speaks against it."""
    pairs = np.random.default_rng(seed).normal(size=(n, 3, 4))
    pairs[..., 1] += 1.5
    pairs[..., 2] *= 10
    pairs[..., 3] -= 0.5
    return pairs


def test_the_level_that_tells_is_found_and_none_counts_against() -> None:
    known, others = planted(150, 0), planted(300, 1)
    weight = _fitted(known, 1.0)
    assert weight.argmax() == 1 and weight.min() >= 0 and weight[3] == 0
    assert weight[2] < 0.1 * weight[1]
    assert _accuracy(others, weight) > _accuracy(others, np.ones(4)) + 0.3


def test_where_all_levels_speak_against_the_labels_there_are_no_weights() -> None:
    assert not _fitted(-abs(planted(20, 2)), 1.0).any()
    assert not _fitted(np.zeros((5, 2, 3)), 1.0).any()


def test_scaled_errors_give_scaled_weights() -> None:
    """The units of a level's errors do not matter: what it adds to the score is the same."""
    pairs, units = planted(40, 3), np.array([1.0, 100.0, 1.0, 1.0])
    assert _fitted(pairs * units, 1.0) * units == pytest.approx(_fitted(pairs, 1.0), rel=1e-4)


def test_they_are_learned_kept_shown_and_used(tmp_path: Path) -> None:
    model = Analytic(two_by_two(1.5))
    x = model.denoiser.draw(24, 0)
    labels = ["circle" if a < 0 else "square" for a in x[:, 0].tolist()]
    texts, how = ["circle", "square"], {"levels": 4, "batch": 256}
    found = learn_weights(model, x[:12], texts, labels[:12], folds=3, **how)
    attrs = found.data.attrs
    assert attrs["cross_validated"] == float(found.data["accuracy"].max()) == 1 and attrs["pictures"] == 12
    assert float(found.weights.sum()) == pytest.approx(attrs["width"] * 4)
    found.save(tmp_path / "weights.zarr")
    again = StepWeights.load(tmp_path / "weights.zarr")
    assert again.data.identical(found.data)
    assert repr(again) == "StepWeights(4 levels, 12 pictures: 100% (nats 100%, v 100%))"
    assert list(again.to_frame().columns) == ["log_snr", "weight", "nats", "v"]
    assert again.to_frame()[["weight", "nats", "v"]].sum().values == pytest.approx([attrs["width"] * 4] * 3)
    assert len(again.plot().data) == 3 and "log_snr" in again._repr_html_()
    told = classify(model, x[12:], texts, weights=again, **how)
    assert told.chosen == labels[12:] and told.data.attrs["level_weights"] == "learned"
    for known in (x[11:13], x[11:12]):
        with pytest.raises(UsageError, match="picture 0 is one that the weights were learned on"):
            classify(model, known, texts, weights=again, **how)
    for other in ({"levels": 5}, {"log_snr": (-5.0, 5.0)}):
        with pytest.raises(UsageError, match="the weights are of 4 levels.*give the same log_snr and levels"):
            classify(model, x[12:], texts, weights=again, **{**how, **other})


def test_a_picture_is_known_by_its_pixels_and_its_latents(tiny: Any, run: Any) -> None:
    """A batch of another size may move the last bits of latents."""
    try:
        found = learn_weights(tiny, run.images, TEXTS, TEXTS * 3, folds=2, levels=4)
    except UsageError:  # a random network may tell nothing of these labels; of the others it then does
        found = learn_weights(tiny, run.images, TEXTS, TEXTS[::-1] * 3, folds=2, levels=4)
    with pytest.raises(UsageError, match="picture 0 is one"):
        classify(tiny, run.images[5:], TEXTS, weights=found, levels=4)
    assert classify(tiny, torch.rand(1, 3, 16, 16), TEXTS, weights=found, levels=4).data.sizes["image"] == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": ["a cat"] * 5}, UsageError, "5 labels for 6 pictures"),
        ({"labels": ["a cat", "a god"] * 3}, NotFoundError, "'a god' is none of the prompts; did you mean"),
        ({"folds": 7}, UsageError, "folds is 7 of 6 pictures"),
        ({"folds": 1}, UsageError, "folds is 1"),
        ({"prompts": ["a cat"]}, UsageError, "at least two"),
    ],
)
def test_wrong_arguments_are_told(
    tiny: Any, run: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"images": run, "prompts": TEXTS, "labels": TEXTS * 3, "levels": 4, **change}
    with pytest.raises(error, match=message):
        learn_weights(tiny, **given)
