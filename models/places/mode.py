"""Evaluation mode, for as long as our own calls last: dropout would make a run random without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from ..undo import Undo


@contextmanager
def evaluating(modules: Iterable[nn.Module | None]) -> Iterator[None]:
    """Have modules in evaluation mode; afterwards each is as it was: the mode is the user's."""
    training = [m for m in modules if m is not None and m.training]
    with Undo() as undo:
        undo.add(partial(_set, training, True))
        _set(training, False)
        yield


def _set(modules: Iterable[nn.Module], training: bool) -> None:
    for module in modules:
        module.training = training
