"""One writer at a time; the next one hears of what the one before left."""

import json
import os

import pytest

from denoscope.models.errors import StateError
from denoscope.models.store.lock import NAME, writing


def test_what_came_to_its_end_is_not_told(tmp_path):
    for _ in range(2):
        with writing(tmp_path, "a", 1) as left:
            assert left is None
    assert (tmp_path / NAME).read_bytes() == b""


def test_what_was_stopped_is_told_to_the_next_one_alone(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing(tmp_path, "a long name", 1):
        raise KeyboardInterrupt
    with writing(tmp_path, "b", 1) as left:
        assert left == "a long name"
        assert json.loads((tmp_path / NAME).read_text())["what"] == "b"  # nothing of the longer one is left
    with writing(tmp_path, "c", 1) as left:
        assert left is None


def test_in_one_process_too_there_is_one_writer(tmp_path):
    with writing(tmp_path, "a", 1):
        with (
            pytest.raises(StateError, match=rf"written by process {os.getpid()} on .*, and was for 0.1 s"),
            writing(tmp_path, "b", 0.1),
        ):
            pass
        (tmp_path / NAME).write_text("[]")
        with pytest.raises(StateError, match="written by another process"), writing(tmp_path, "b", 0):
            pass
