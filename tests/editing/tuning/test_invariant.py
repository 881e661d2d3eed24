"""Invariant tuning: groups that were met unlike come closer, the note is what the Edit does, failures."""

from __future__ import annotations

import pytest
import torch

from denoscope import load
from denoscope.editing import InvariantFit, invariant
from denoscope.editing.tuning import invariant as method
from denoscope.models.synthetic.tiny import tiny_ddim

QUICK = InvariantFit(rank=4, steps=60, rate=0.02, draws=16, levels=4)
HALVES = torch.eye(2).repeat_interleave(8, 0)


@pytest.fixture(scope="module")
def pictures():
    """Eight flat pictures and eight of noise: the network meets them unlike."""
    source = torch.Generator().manual_seed(0)
    flat = torch.full((8, 3, 8, 8), 0.5)
    return torch.cat([flat, torch.rand(8, 3, 8, 8, generator=source)])


@pytest.fixture
def unconditional():
    return load(tiny_ddim())


def test_a_penalty_brings_groups_together(unconditional, pictures):
    made = {}
    for penalty in (0.0, 3000.0):
        how = InvariantFit(**{**vars(QUICK), "penalty": penalty})
        made[penalty] = invariant(unconditional, pictures, HALVES, settings=how)
    before = {p: e.note["groups"]["before"] for p, e in made.items()}
    after = {p: e.note["groups"]["after"] for p, e in made.items()}
    assert before[0.0] == before[3000.0]
    assert after[0.0]["mean"] < before[0.0]["mean"]
    assert after[3000.0]["apart"] < min(after[0.0]["apart"], before[0.0]["apart"])
    assert made[0.0].to_frame()["rank"].max() <= 4


def test_the_note_is_what_the_edit_does(unconditional, pictures):
    """Exact: errors that the note tells are those of the model with the edit on."""
    edit = invariant(unconditional, pictures, HALVES, settings=QUICK)
    with edit.applied(unconditional):
        again = invariant(
            unconditional, pictures, HALVES, settings=InvariantFit(**{**vars(QUICK), "steps": 1})
        )
    assert again.note["groups"]["before"] == pytest.approx(edit.note["groups"]["after"], rel=1e-4)


def test_texts_are_read_by_a_model_that_reads_any(tiny):
    images, quick = torch.rand(4, 3, *tiny.size), InvariantFit(rank=1, steps=2, draws=4, levels=2)
    shares = torch.eye(2).repeat(2, 1)
    told = [invariant(tiny, images, shares, prompts=texts, settings=quick).note["groups"]["before"]["mean"]
            for texts in (["a cat"] * 4, ["a dog"] * 4, None)]  # fmt: skip
    assert len({round(x, 9) for x in told}) == 3


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (HALVES[:4], r"groups are \(4, 2\) for 16 pictures"),
        (torch.ones(16, 1), r"of two groups or more"),
        (HALVES * 2, "not 1 in all"),
        (torch.tensor([[1.5, -0.5]]).repeat(16, 1), "below 0"),
        (torch.tensor([[1.0, 0.0]]).repeat(16, 1), "group 1 holds no picture"),
    ],
)
def test_shares_that_are_none_are_told(unconditional, pictures, groups, message):
    with pytest.raises(ValueError, match=message):
        invariant(unconditional, pictures, groups, settings=QUICK)


def test_what_makes_no_fit_is_told_and_leaves_nothing(unconditional, pictures, monkeypatch):
    for wrong in ({"rank": 0}, {"rate": float("nan")}, {"penalty": -1.0}, {"levels": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            InvariantFit(**wrong)
    with pytest.raises(ValueError, match="reads no text"):
        invariant(unconditional, pictures, HALVES, prompts=["a cat"] * 16, settings=QUICK)
    with pytest.raises(ValueError, match="have no linear layer"):
        invariant(unconditional, pictures, HALVES, sites=["unet/mid.res.0/resid.post"], settings=QUICK)
    monkeypatch.setattr(method, "scales", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        invariant(unconditional, pictures, HALVES, settings=QUICK)  # the watch sees whether a weight was left
