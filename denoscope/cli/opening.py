"""What several commands do first: look at the place to write, open the model, apply an edit, sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ..models.errors import FileInTheWayError
from ..models.store.disk import check_writable
from .output import err

if TYPE_CHECKING:
    from ..models.base import Model
    from ..models.progress import Progress
    from ..probes.trace import Trace


def open_model(name: str) -> Model:
    """Open a model by its name, saying so while it takes its time."""
    from ..models.load import load

    use_threads(name)
    with err.status(f"opening {escape(name)}"):
        return load(name)


def use_threads(model: str) -> None:
    """Give embedded models one thread: with two, other load made runs 5 to 30 times slower."""
    import torch

    from ..models.zoo import ZOO

    if model in ZOO and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def check_new(output: Path | None) -> None:
    """Raise OSError if something is there already, or it could not be written."""
    if output is None:
        return
    if output.exists():
        raise FileInTheWayError(f"{output} exists; name a new one with --output, or delete it")
    check_writable(output)


@contextmanager
def edited(model: Model, file: Path | None) -> Iterator[None]:
    """Apply the edit of a file to a model for the length of a with block; no file, no edit."""
    from ..editing.edit import Edit

    if file is None:
        yield
    else:
        with Edit.load(file).applied(model):
            yield


def trace_prompt(model: Model, prompt: str, seeds: int, show: Progress, *, steps: int, **more: Any) -> Trace:
    """Sample one prompt with seeds 0, 1, ... under a progress bar."""
    from ..investigation.case import check_seeds
    from ..probes.trace import trace as run

    check_seeds(seeds)
    return run(
        model,
        [prompt] * seeds,
        seeds=list(range(seeds)),
        steps=steps,
        progress=show,
        **more,
    )
