"""Words left out: what a word moves is foretold by what it tells, in a planted order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import WordChanges, attribute, mutual_information, word_changes, word_maps
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser

READ = ("unique information", "conditional information", "position")
HOW: dict[str, Any] = {"seeds": range(8), "steps": 6, "predictors": READ, "batch": 8192}


@pytest.fixture(scope="module")
def model() -> Analytic:
    """Three words, each of its own coordinate: one moves far, one a little, one nothing."""
    cells = [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    means = torch.tensor([[1.5 * a, 0.2 * b, 0.0 * c] for a, b, c in cells], dtype=torch.float64)
    said = {
        "first": [{1: "far", -1: "off"}[a] for a, _, _ in cells],
        "second": [{1: "near", -1: "by"}[b] for _, b, _ in cells],
        "third": [{1: "idle", -1: "lazy"}[c] for *_, c in cells],
    }
    covs = torch.eye(3, dtype=torch.float64).expand(8, 3, 3) * 0.3
    return Analytic(AnalyticDenoiser(torch.ones(8, dtype=torch.float64), means, covs, said))


@pytest.fixture(scope="module")
def found(model: Analytic) -> WordChanges:
    return word_changes(model, ["near far idle", "lazy off by"], **HOW)


def test_the_planted_order_is_found_and_position_knows_nothing_of_it(found: WordChanges) -> None:
    frame = found.to_frame().set_index("word")
    for far, near, idle in (("far", "near", "idle"), ("off", "by", "lazy")):
        for column in ("latents", "unique information", "conditional information"):
            values = frame[column]
            assert values[far] > 2 * values[near] > 0.02 and abs(values[idle]) < 0.05
    told = found.correlations().set_index("predictor")
    assert told.loc["conditional information", "low"] > 0.5 > abs(told.loc["position", "mean"])
    assert (found.data["predictors"].sel(predictor="position", seed=0).values == [3, 2, 1, 3, 2, 1]).all()
    won = found.correlations(less="position").set_index("predictor")
    assert list(won.index) == list(READ[:2])
    assert won.loc[READ[1], "mean"] == pytest.approx(told.loc[READ[1], "mean"] - told.loc["position", "mean"])


def test_the_order_of_words_does_not_matter(model: Analytic, found: WordChanges) -> None:
    """To a model that does not read it."""
    again = word_changes(model, ["idle near far"], **HOW).to_frame().set_index("word")
    first = found.to_frame().set_index("word").loc[again.index]
    for column in ("latents", *READ[:2]):
        assert again[column].to_numpy() == pytest.approx(first[column].to_numpy(), abs=1e-9)


def test_a_swap_is_another_word_in_its_place(model: Analytic) -> None:
    found = word_changes(model, ["near far idle"], swaps={"far": "off", "idle": "lazy"}, **HOW)
    frame = found.to_frame().set_index("word")
    assert frame["changed"].to_dict() == {"near": "far idle", "far": "near off idle", "idle": "near far lazy"}
    assert frame["latents"]["far"] == pytest.approx(3 / 3**0.5, rel=0.1)  # from 1.5 to -1.5, of three numbers
    assert frame["latents"]["idle"] == 0


def test_on_a_network_predictors_and_changes_are_what_others_say(tiny: Any) -> None:
    prompt, seeds = "a red cat", [1]
    found = word_changes(
        tiny,
        [prompt],
        seeds=seeds,
        words={prompt: ["cat", "red"]},
        steps=2,
        levels=4,
        distances={"pixels": lambda a, b: (a - b).abs().mean((1, 2, 3))},
    )
    assert found.data["word"].values.tolist() == ["red", "cat"]
    run = denoscope.trace(tiny, [prompt], seeds=seeds, steps=2)
    less = denoscope.trace(tiny, ["a red"], seeds=seeds, steps=2)
    change = found.data["change"].isel(unit=1)
    assert change.sel(distance="pixels").values == pytest.approx(
        (less.images - run.images).abs().mean((1, 2, 3)).numpy()
    )
    assert change.sel(distance="latents").values == pytest.approx(
        (less.latents - run.latents).square().flatten(1).mean(1).sqrt().numpy()
    )
    told = found.data["predictors"].isel(unit=1)
    given = mutual_information(tiny, run, prompt, given="a red", levels=4, seed=1)
    assert told.sel(predictor="conditional information").values == pytest.approx(given.nats.values, abs=1e-3)
    maps = word_maps(tiny, [prompt], ["cat"], seeds=seeds, steps=2).maps.mean(("y", "x"))
    assert told.sel(predictor="attention").values == pytest.approx(maps.values[:, 0])
    owed = attribute(tiny, [prompt], of="shift", to="words", seeds=[1], images=run.images, points=8,
                     at=tiny.step_at(log_snr=-2.0), words=["red", "cat"])  # fmt: skip
    assert told.sel(predictor="gradient").values[0] == pytest.approx(
        abs(float(owed.values.sel(word="cat").squeeze()))
    )


def test_it_is_kept_shown_and_drawn(found: WordChanges, tmp_path: Path) -> None:
    found.save(tmp_path / "changes")
    again = WordChanges.load(tmp_path / "changes")
    assert again.data.identical(found.data) and "6 words of 2 prompts, 8 seeds" in repr(again)
    assert "conditional information" in again._repr_html_()
    assert len(again.plot().layout.meta["table"]["rows"]) == len(READ)


def test_wrong_arguments_are_told(model: Analytic, found: WordChanges) -> None:
    few: dict[str, Any] = {**HOW, "seeds": [0], "steps": 1, "levels": 4}

    def wrong(error: type[Exception], message: str, prompts: Any = ("near far",), **more: Any) -> None:
        with pytest.raises(error, match=message):
            word_changes(model, list(prompts), **{**few, **more})

    wrong(UsageError, "prompts is empty", [])
    wrong(UsageError, "is no pair", ["near"])
    wrong(NotFoundError, "'fra' is not in the prompt", words={"near far": ["near", "fra"]})
    wrong(NotFoundError, "words are .*'near', which is no prompt", words={"near": ["near"]})
    wrong(NotFoundError, "no predictor 'atention'; did you mean 'attention'", predictors=["atention"])
    wrong(NotFoundError, "swaps name 'idle', which is not tried", swaps={"idle": "lazy"})
    wrong(UsageError, "'latents' is always there", distances={"latents": lambda a, b: a[:, 0]})
    wrong(UsageError, r"distance 'd' returned shape \[1, 3\] for 1 pictures", distances={"d": lambda a, b: a})
    wrong(UsageError, "returned NaN", distances={"d": lambda a, b: a[:, 0] * np.nan})
    with pytest.raises(NotFoundError, match="no predictor 'attention'"):
        found.correlations(less="attention")
