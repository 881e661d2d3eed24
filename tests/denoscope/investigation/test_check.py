"""What is tried at the end: texts that the model reads; and the last stage, where no judge ships with it."""

import torch

from denoscope.investigation.case import fitting
from denoscope.investigation.stages.check import _Nobody
from denoscope.investigation.wording import Wording
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd


def test_without_a_judge_there_is_no_fit():
    fit = _Nobody().similarity(torch.zeros(2, 3, 4, 4), ["a", "b", "c"])
    assert fit.shape == (2, 3) and fit.isnan().all()


def test_texts_that_a_model_cannot_read_are_left_out():
    """Too long, or with a word that one of its tokenizers does not know."""
    model = load(tiny_sd())
    words = Wording(
        "cat", "dog", ("a {}",), ("one {}", "猫 {}"), {"red": ("a {}",), "猫": ("a {}",)}, ("x" * 99,)
    )
    kept = fitting(model, words)
    assert (kept.generality, kept.neighbourhood, kept.keep) == (("one {}",), {"red": ("a {}",)}, ())
