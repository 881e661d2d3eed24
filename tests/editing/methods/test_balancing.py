"""Debiasing in rounds: the authors' accumulated amounts, from the original weights, with a scripted count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope.editing import EditSettings, balance, uce
from denoscope.models.synthetic.tiny import tiny_sd

FEW = EditSettings(templates=("a {}",), tokens="subject")
WANTED = {"cat": {"red": 0.5, "dog": 0.5}}
HOW: dict[str, Any] = {"prompts": ["a {}"], "steps": 1, "settings": FEW}


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def scripted(*rounds: str) -> Any:
    """Labels that were written down beforehand: r, d or another, for each picture of each round."""
    left = [{"r": "red", "d": "dog"}.get(letter) for letter in "".join(rounds)]
    return lambda images: [left.pop(0) for _ in images]


def test_amounts_add_up_over_rounds_and_the_edit_is_solved_from_the_original_weights(model: Any) -> None:
    """uce_sd_debias.py adds wanted - seen to what it holds in memory: 0.5, -0.5, then 0.25, -0.25."""
    found = balance(model, WANTED, scripted("dddd", "rddd", "rrdd"), seeds=range(4), **HOW)
    assert found.done and found.history["round"].max() == 2
    amounts = found.history.pivot(index="round", columns="attribute", values="amount")
    assert amounts["red"].tolist() == [0.0, 0.5, 0.75] and amounts["dog"].tolist() == [0.0, -0.5, -0.75]
    assert found.edit == uce(model, {}, debias={"cat": {"red": 0.75, "dog": -0.75}}, settings=FEW)
    assert "within tolerance after 3 rounds" in repr(found)


def test_small_gaps_count_as_none_and_other_labels_as_neither(model: Any) -> None:
    found = balance(model, WANTED, scripted("rdrd"), seeds=range(4), **HOW)
    assert found.done and found.edit is None
    other = balance(model, WANTED, scripted("rxxx", "rdxx"), seeds=range(4), rounds=2, **HOW)
    assert not other.done and other.history["share"].tolist() == [0.25, 0.0, 0.25, 0.25]
    assert other.edit is not None


def test_pictures_are_painted_with_the_edit_of_the_round_before(model: Any) -> None:
    seen: list[Tensor] = []

    def label(images: Tensor) -> list[str]:
        seen.append(images)
        return ["dog"] * len(images)

    found = balance(model, WANTED, label, seeds=[0, 1], rounds=2, batch=1, **HOW)
    with found.edit.applied(model):
        again = denoscope.trace(model, ["a cat"], seeds=[1], steps=1).images
    plain = denoscope.trace(model, ["a cat"], seeds=[1], steps=1).images
    assert torch.equal(seen[3], again) and torch.equal(seen[1], plain) and not torch.equal(again, plain)


def test_bad_wishes_are_named(model: Any) -> None:
    with pytest.raises(ValueError, match="wanted asks for {'red': 0.7, 'dog': 0.7} of 'cat'"):
        balance(model, {"cat": {"red": 0.7, "dog": 0.7}}, scripted(), seeds=[0], **HOW)
    with pytest.raises(ValueError, match=r"the prompt 'a cat' needs exactly one {}"):
        balance(model, WANTED, scripted(), seeds=[0], prompts=["a cat"])
    with pytest.raises(ValueError, match="label gave 1 answers for 2 pictures"):
        balance(model, WANTED, lambda _: ["red"], seeds=[0, 1], **HOW)
    with pytest.raises(ValueError, match="give at least one of each"):
        balance(model, WANTED, scripted(), seeds=[], **HOW)
