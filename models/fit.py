"""One training loop for every method that trains something small; what was stopped goes on, to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import UsageError
from .fit_state import Checkpoints, MakeOptimizer, Training
from .progress import Progress, showing
from .store.canonical import json_hash, plain_json
from .store.store import Store
from .undo import Undo

Loss: TypeAlias = Callable[[int, torch.Generator], Tensor]

ADAMW: MakeOptimizer = partial(torch.optim.AdamW, lr=1e-3)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves behind; what was trained was trained in place.

    Args:
        losses: the loss before each step, [step].
    """

    losses: Float[np.ndarray, "step"]

    @property
    def steps(self) -> int:
        """How many steps were made, over all starts."""
        return len(self.losses)

    def to_frame(self) -> pd.DataFrame:
        """Return the losses as a table: ``step`` and ``loss``."""
        return pd.DataFrame({"step": range(self.steps), "loss": self.losses})

    def __repr__(self) -> str:
        first, last = (f"{self.losses[i]:.4g}" for i in (0, -1))
        return f"Fitted({self.steps} steps; loss {first} -> {last})"


def fit(
    what: nn.Module | Mapping[str, Tensor] | Iterable[Tensor],
    loss: Loss,
    *,
    steps: int,
    optimizer: MakeOptimizer = ADAMW,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    every: int = 100,
    progress: Progress | None = None,
) -> Fitted:
    """Train parameters in place.

    With a folder, a fit that was stopped, however it was, goes on from its last checkpoint when it is called
    again, and ends with the same bits as one that was not. If it is stopped by an error or Ctrl-C, the
    parameters are put back to the last checkpoint (without one: to the start), so nothing is half trained.

    Args:
        what: a module (those of its parameters that require gradients are trained; its buffers are part of
            the checkpoint), or tensors, by name or in order.
        loss: called as ``loss(step, generator)``; returns one number. It may depend on the parameters, the
            step, and randomness from the generator or torch's own (dropout), which both begin anew at each
            step; nothing else may change from step to step, or a resumed fit differs.
        steps: number of steps.
        optimizer: makes the optimizer; others: ``partial(torch.optim.SGD, lr=0.1, momentum=0.9)``.
        schedule: the factor of the learning rate at each step; None is 1.
        seed: of the randomness.
        about: what else the loss depends on (data, settings, weights' hash); JSON. Compared when resuming.
        folder: for the checkpoints; None keeps none.
        every: steps between checkpoints.
        progress: called with (done, total, what).

    Raises:
        UsageError: for what cannot be trained, or a folder that holds another fit; it names the difference.
        StateError: if the loss is not finite; it names the step.

    >>> x = torch.zeros(2, requires_grad=True)
    >>> fitted = fit([x], lambda step, rng: (x - 3).square().sum(), steps=200,
    ...              optimizer=partial(torch.optim.SGD, lr=0.1))
    >>> x.detach(), fitted.steps
    (tensor([3.0000, 3.0000]), 200)
    """
    _check(steps=steps, every=every)
    state = Training.of(what, optimizer)
    factors = [1.0 if schedule is None else float(schedule(i)) for i in range(steps)]
    settings = {"steps": steps, "seed": seed, "about": plain_json(about or {}, "about"), **state.settings()}
    settings["schedule"] = None if schedule is None else json_hash(factors)
    checkpoints = None if folder is None else Checkpoints(Store(Path(folder)), settings)
    if checkpoints is not None:
        checkpoints.restore(state)
    with showing(progress) as show, state.whole(), torch.enable_grad():
        for step in range(len(state.losses), steps):
            with seeded(seed, step, state.devices) as generator:
                state.step(loss(step, generator), factors[step])
            if checkpoints is not None and ((step + 1) % every == 0 or step + 1 == steps):
                checkpoints.save(state)
            show(step + 1, steps, "fitting")
    return Fitted(np.array(state.losses))


@contextmanager
def seeded(seed: int, step: int, devices: Iterable[torch.device] = ()) -> Iterator[torch.Generator]:
    """Give a generator for one step, and let torch's own randomness begin anew for as long.

    Both depend on seed and step alone, and not on each other; afterwards torch's own is as it was.
    """
    own, given = (
        int.from_bytes(hashlib.sha256(f"{seed} {step} {use}".encode()).digest()[:7])
        for use in ("own", "given")
    )
    cuda = [d.index or 0 for d in devices if d.type == "cuda"]
    ambient = [torch.default_generator, *(torch.cuda.default_generators[i] for i in cuda)]
    states = [generator.get_state() for generator in ambient]
    with Undo() as undo:
        for generator, state in zip(ambient, states, strict=True):
            undo.add(partial(generator.set_state, state))
            generator.manual_seed(own)  # torch.manual_seed takes a stack trace for every kind of accelerator
        yield torch.Generator().manual_seed(given)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} is {count}; at least 1")
