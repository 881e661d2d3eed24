"""Change activations while a model runs: patch, scale, zero, mean, resample.

One mechanism for reading and writing: recording is an intervention that returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.errors import NotFoundError
from ..models.places.intervention import Change, Intervention, Probe, Spec, intervening
from ..models.run.context import CallContext, When
from ..models.run.levels import Step
from ..models.site import Site

__all__ = [
    "Change",
    "Intervention",
    "Probe",
    "Spec",
    "intervening",
    "mean",
    "patch",
    "resample",
    "scale",
    "zero",
]


def scale(site: Site | str, factor: float, when: When = When()) -> Intervention:
    """Multiply what passes through a site."""
    return Intervention(_site(site), lambda x, _: factor * x, when, Spec("scale", {"factor": factor}))


def zero(site: Site | str, when: When = When()) -> Intervention:
    """Zero-ablate a site."""
    return Intervention(_site(site), lambda x, _: torch.zeros_like(x), when, Spec("zero", {}))


def patch(
    site: Site | str,
    values: Mapping[Site, Any] | Tensor,
    when: When = When(),
    tokens: Sequence[int] | None = None,
) -> Intervention:
    """Put activations of another run in place (activation patching).

    Args:
        site: where.
        values: a Trace that holds the site, or a tensor [step, row, ...] ([row, ...] in text encoders);
            a row size of 1 is used for every row.
        when: which steps, branch and samples. Steps the values do not hold are an error.
        tokens: patch only these positions of axis 1; None patches everything.
    """
    site = _site(site)
    at, kept = _lookup(site, values)

    def fn(x: Tensor, context: CallContext) -> Tensor:
        new = at(context.step).to(x).expand_as(x)
        if tokens is None:
            return new
        y = x.clone()
        y[:, list(tokens)] = new[:, list(tokens)]
        return y

    spec = Spec("patch", {**kept, "tokens": None if tokens is None else list(tokens)})
    return Intervention(site, fn, when, spec)


def mean(site: Site | str, values: Mapping[Site, Any] | Tensor, when: When = When()) -> Intervention:
    """Mean-ablate: put in place the mean over the samples of another run, step by step."""
    site = _site(site)
    at, kept = _lookup(site, values)

    def fn(x: Tensor, context: CallContext) -> Tensor:
        return at(context.step).mean(0, keepdim=True).to(x).expand_as(x)

    return Intervention(site, fn, when, Spec("mean", kept))


def resample(
    site: Site | str, values: Mapping[Site, Any] | Tensor, seed: int = 0, when: When = When()
) -> Intervention:
    """Resample-ablate: each row gets the activation of a random sample of another run (one draw per row)."""
    site = _site(site)
    at, kept = _lookup(site, values)

    def fn(x: Tensor, context: CallContext) -> Tensor:
        pool = at(context.step)
        order = torch.randint(len(pool), (len(x),), generator=torch.Generator().manual_seed(seed))
        return pool[order].to(x)

    return Intervention(site, fn, when, Spec("resample", {**kept, "seed": seed}))


def _lookup(
    site: Site, values: Mapping[Site, Any] | Tensor
) -> tuple[Callable[[Step | None], Tensor], dict[str, Any]]:
    """Return what finds the values of a step, and the values as parameters of a Spec."""
    if isinstance(values, Tensor):
        indices = {i: i for i in range(len(values))}
        tensor = values
    else:
        tensor = values[site]
        kept = getattr(values, "kept_steps", {})
        indices = {s.index: i for i, s in enumerate(kept)}

    def at(step: Step | None) -> Tensor:
        if step is None:
            return tensor
        if step.index not in indices:
            raise NotFoundError(
                f"no activation of {site} at step {step.index}; there are steps {sorted(indices)}"
            )
        return tensor[indices[step.index]]

    return at, {"values": tensor, "steps": sorted(indices)}


def _site(site: Site | str) -> Site:
    return Site(str(site))
