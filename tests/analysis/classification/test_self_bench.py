"""The bench of a model's own pictures: the exact denoiser knows its own, and a judge stands beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import denoscope
from denoscope.analysis import classify, self_bench
from denoscope.models.errors import UsageError
from denoscope.models.synthetic.analytic import Analytic, two_by_two

COLUMNS = ["task", "by", "pictures", "n", "accuracy", "low", "high", "ties", "chance"]


def test_the_exact_denoiser_knows_its_own_points() -> None:
    tasks = {"shape": ["circle", "square"], "order": ["red circle", "circle red", "blue"]}
    found = self_bench(Analytic(two_by_two()), tasks, seeds=range(4), steps=8)
    assert list(found.columns) == COLUMNS
    shape, order = found.iloc[0], found.iloc[1]
    assert (shape["task"], shape["n"], shape["accuracy"], shape["ties"], shape["chance"]) == (
        "shape",
        8,
        1,
        0,
        0.5,
    )
    assert order["accuracy"] == pytest.approx(1 / 3) and order["ties"] == 8  # it reads no order: no answer


def test_it_is_what_classify_says_of_a_run_and_batches_do_not_matter(tiny: Any) -> None:
    texts, asked = ["a cat", "a dog"], ["a cat"] * 3 + ["a dog"] * 3
    how: dict[str, Any] = {"steps": 2, "guidance": 2.0}
    run = denoscope.trace(tiny, asked, seeds=[0, 1, 2] * 2, **how)
    row = classify(tiny, run, texts, levels=4).accuracy(asked).iloc[0]
    for batch in (4, 32):
        found = self_bench(tiny, {"animal": texts}, seeds=range(3), levels=4, batch=batch, **how).iloc[0]
        assert found["accuracy"] == row["accuracy"] and found["n"] == 6


def test_a_judge_answers_too_and_says_which_pictures_show_what_was_asked(tiny: Any) -> None:
    def first(images: torch.Tensor, texts: Any) -> torch.Tensor:
        """Sees the first text everywhere, a little better in bright pictures."""
        bright = images.mean((1, 2, 3))
        return torch.stack([2 + bright, *(bright for _ in texts[1:])], 1)

    how: dict[str, Any] = {"seeds": range(2), "steps": 1, "levels": 4, "judge": first}
    found = self_bench(tiny, {"animal": ["a cat", "a dog"]}, **how)
    assert found[["by", "pictures", "n"]].values.tolist() == [
        ["denoiser", "all", 4],
        ["judge", "all", 4],
        ["denoiser", "as asked", 2],
    ]
    assert found["accuracy"][1] == 0.5
    alike = self_bench(
        tiny, {"animal": ["a cat", "a dog"]}, **{**how, "judge": lambda x, t: torch.ones(len(x), 2)}
    )
    assert alike["ties"][1] == 4 and alike["accuracy"][1] == 0 and alike["n"][2] == 0
    assert alike.loc[2, ["accuracy", "low", "high"]].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {}}, "tasks is empty"),
        ({"tasks": {"animal": ["a cat"]}}, "at least two"),
        ({"tasks": {"animal": []}}, "at least two"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "more than once"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_wrong_arguments_are_told(tiny: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        self_bench(tiny, **{"tasks": {"animal": ["a cat", "a dog"]}, "seeds": [0], "steps": 1, **change})
