"""One explanation on the tiny model, looked at from all sides."""

from __future__ import annotations

import pytest

import denoscope


@pytest.fixture(scope="session")
def found(tiny):
    """Two words, one pair."""
    return denoscope.explain(tiny, "a red cat", steps=2, levels=8)
