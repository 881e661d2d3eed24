"""An edit on disk."""

from __future__ import annotations

import pytest

from tests.denoscope.cli.calling import call


@pytest.fixture
def edited(folder, tmp_path):
    """An edit of the tiny model."""
    file = tmp_path / "edit.safetensors"
    assert call("edit", "cat", "dog", "--model", folder, "-o", file).exit_code == 0
    return file
