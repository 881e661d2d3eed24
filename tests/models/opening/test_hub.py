"""What is fetched from the hub, and what is said where it cannot be."""

from __future__ import annotations

import diffusers
import pytest

from denoscope.models.errors import UsageError
from denoscope.models.opening import hub


def away(*_, **__):
    raise ConnectionError("Name or service not known\nmore")


def test_without_a_network_it_is_said_at_once_with_what_to_do(monkeypatch):
    monkeypatch.setattr(hub.HfApi, "model_info", away)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", None)  # would try for a minute
    with pytest.raises(UsageError, match=r"'a/b' is not on this machine.*\(Name or service") as told:
        hub.fetched("a/b", None, None, print)
    assert "more" not in str(told.value) and "hf download a/b" in told.value.__notes__[0]


def test_without_a_network_what_was_fetched_before_is_taken(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub.HfApi, "model_info", away)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path))
    index, download = ({"_class_name": "X"}, str(tmp_path))
    for name, found in (("load_config", index), ("download", download)):
        monkeypatch.setattr(
            diffusers.DiffusionPipeline, name, lambda *_, found=found, **o: asked.append(o) or found
        )
    assert hub.fetched("a/b", None, None, asked.append) == tmp_path
    assert [o["local_files_only"] for o in (asked[0], asked[2])] == [True, True] and asked[1] == "X"


def test_what_the_hub_answers_is_told(monkeypatch):
    def gone(*_, **__):
        raise ValueError("there is no such repository\nmore")

    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", gone)
    with pytest.raises(UsageError, match="^could not fetch 'a/b': there is no such repository$"):
        hub.fetched("a/b", None, None, print)
