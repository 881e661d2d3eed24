"""The numbers of a dictionary: which shapes fit, and biases that depend on the noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...models.errors import UsageError
from ...models.run.levels import Step

SLACK = 0.02
"""How far beyond the first or last level a step may lie, as a share of all noise levels."""


def share(sigma: float) -> float:
    """Return a noise level as a share of 1, which stays finite: ``2 atan(sigma) / pi``."""
    return 2 * math.atan(sigma) / math.pi


def mixture(levels: Sequence[float], step: Step) -> Tensor:
    """Return how much each level counts at a step, [level]: one, or two neighbours.

    Args:
        levels: noise levels sigma, noisiest first.
        step: of any run.

    Raises:
        UsageError: for a step beyond the levels.
    """
    at, known = share(step.sigma), [share(s) for s in levels]
    if not known[-1] - SLACK <= at <= known[0] + SLACK:
        raise UsageError(
            f"step {step.index} has the noise level {step.sigma:.4g}; the dictionary was trained from "
            f"{levels[0]:.4g} to {levels[-1]:.4g}: leave that step out (steps=...), or train it on such steps"
        )
    weights = torch.zeros(len(known))
    after = next((i for i, s in enumerate(known) if s <= at), len(known) - 1)
    before = max(after - 1, 0)
    span = known[before] - known[after]
    part = min(1.0, max(0.0, (at - known[after]) / span)) if span > 0 else 0.0
    weights[after] += 1 - part
    weights[before] += part
    return weights


def mixtures(levels: Sequence[float], steps: Step | Sequence[Step] | None, groups: int) -> Tensor:
    """Return how much each level counts in each of some groups of rows, [group, level].

    Args:
        levels: empty where steps do not count; then there is one level.
        steps: one for all groups, or one for each.
        groups: how many.

    Raises:
        UsageError: for steps that are missing, too few or too many, or beyond the levels.
    """
    if not levels:
        return torch.ones(groups, 1)
    if steps is None:
        raise UsageError("what this dictionary says depends on the noise level; give steps=run.kept_steps")
    each = list(steps) if isinstance(steps, Sequence) else [steps] * groups
    if len(each) != groups:
        raise UsageError(f"{len(each)} steps for {groups} on the first axis; give one for each")
    return torch.stack([mixture(levels, step) for step in each])


def fitting(tensors: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Return the tensors of a dictionary in float32.

    Args:
        tensors: by name.
        levels: of its biases; 0 is one that counts everywhere.

    Raises:
        UsageError: for shapes that do not fit together, and values that are no finite floats.
    """
    encoder, decoder = tensors["encoder"], tensors["decoder"]
    n, d = decoder.shape if decoder.ndim == 2 else (-1, -1)
    d_in, of = encoder.shape[-1] if encoder.ndim else -1, max(1, levels)
    shapes = {"encoder": (n, d_in), "decoder": (n, d), "threshold": (n,)}
    shapes |= {"encoder_bias": (of, n), "input_bias": (of, d_in), "output_bias": (of, d)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[name] or not tensor.is_floating_point():
            raise UsageError(
                f"{name} is {tuple(tensor.shape)} of {tensor.dtype}; beside a decoder "
                f"{tuple(decoder.shape)} and {of} levels it is {shapes[name]}, of floats"
            )
        if not bool(tensor.isfinite().all()):
            raise UsageError(f"{name} holds values that are not finite; the training diverged")
    return {name: tensor.detach().float() for name, tensor in tensors.items()}
