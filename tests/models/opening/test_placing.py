"""Where a model computes and in which format, by name."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.opening.placing import placing


def test_what_load_does_by_itself_is_left_to_it():
    assert placing() == {} and placing("cpu", "bfloat16") == {"dtype": torch.bfloat16}
    assert placing("meta") == {"device": "meta"}


@pytest.mark.parametrize(
    ("device", "dtype"), [("nowhere", "float32"), ("cpu", "float61"), ("cuda:99", "float32")]
)
def test_what_there_is_not_is_refused(device, dtype):
    with pytest.raises(ValueError, match=f"{device}|{dtype}"):
        placing(device, dtype)
