"""The last stage, where no judge ships with the model."""

import torch

from denoscope.investigation.stages.check import _Nobody


def test_without_a_judge_there_is_no_fit():
    fit = _Nobody().similarity(torch.zeros(2, 3, 4, 4), ["a", "b", "c"])
    assert fit.shape == (2, 3) and fit.isnan().all()
