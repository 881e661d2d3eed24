"""A small model on disk, and a finished investigation of it."""

from __future__ import annotations

import pytest
import torch

import denoscope
from denoscope.investigation import Case
from denoscope.models.synthetic.tiny import tiny_sd


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A random tiny model as a folder; its prompts are made of "a red cat", "dog", "cook"."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_sd().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def case(folder):
    """What the tests ask of it."""
    return Case("a red cat", "cat", "dog", str(folder), seeds=2, steps=2, draws=1, analyses=("mediation",))


@pytest.fixture(scope="session")
def finished(case, tmp_path_factory):
    """The folder of a finished investigation; read it only."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    with torch.random.fork_rng():
        denoscope.investigate(case, path, command="denoscope investigate 'a red cat'")
    return path
