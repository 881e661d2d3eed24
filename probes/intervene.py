"""Change activations while a model runs: patch, scale, zero, mean, resample.

One mechanism for reading and writing: recording is an intervention that returns None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..models.adapter import Adapter
from ..models.arguments import checked
from ..models.errors import NotFoundError, UsageError
from ..models.places.intervention import Change, Intervention, Probe, Spec, intervening
from ..models.run.context import CallContext, When
from ..models.run.levels import Step
from ..models.run.noise import generators
from ..models.site import Site
from ..models.suggest import near

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


@checked
def scale(site: Site | str, factor: float, when: When = When()) -> Intervention:
    """Multiply what passes through a site.

    Raises:
        ValueError: for a factor that is not finite.
    """
    if not math.isfinite(factor):
        raise UsageError(f"factor is {factor}; it is a finite number, 0 to take away what is there")
    return Intervention(_site(site), lambda x, _: factor * x, when, Spec("scale", {"factor": factor}))


@checked
def zero(site: Site | str, when: When = When()) -> Intervention:
    """Zero-ablate a site."""
    return Intervention(_site(site), lambda x, _: torch.zeros_like(x), when, Spec("zero", {}))


@checked
def patch(
    site: Site | str,
    values: Mapping[Site, Any] | Tensor,
    when: When = When(),
    tokens: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Intervention:
    """Put activations of another run in place (activation patching).

    Args:
        site: where.
        values: a Trace that holds the site, a dictionary of tensors, or a tensor [step, row, ...]
            ([row, ...] in text encoders); a row size of 1 is used for every row. Steps the values do not hold
            are an error, and so are those of a Trace that was at another time there.
        when: which steps, branch and samples.
        tokens: patch only these positions of the site's tokens, wherever its layout has them; None is all.
        heads: patch only these heads of q, k, v, z or probs; None is all.

    Raises (where it acts):
        LookupError: for steps that the values do not hold.
        ValueError: for tokens or heads that the site does not have, other times, and rows that do not fit.
    """
    site = _site(site)
    at, kept = _lookup(site, values)
    some = {
        name: None if part is None else list(part) for name, part in (("tokens", tokens), ("heads", heads))
    }
    put = Intervention(site, partial(_patched, at), when, Spec("patch", {**kept, **some}))
    return partly(put, tokens, heads)


def _patched(at: _Values, x: Tensor, context: CallContext) -> Tensor:
    return _fitting(at.site, at(context.step), x)


def partly(
    change: Intervention, tokens: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> Intervention:
    """Return what changes these tokens or heads of a site alone; None is all. The spec has to say so."""
    if tokens is None and heads is None:
        return change
    own = (change.site, change.fn, change.when, change.spec)
    return _PartialChange(*own, *(None if some is None else list(some) for some in (tokens, heads)))


@dataclass(frozen=True)
class _PartialChange(Intervention):
    """A change of some tokens or heads; which axes they are is asked of the model that it acts in."""

    tokens: list[int] | None = field(default=None, compare=False)
    heads: list[int] | None = field(default=None, compare=False)

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        layout = model.layout(self.site)
        chosen: dict[int, tuple[str, list[int]]] = {}
        for what, axes, some in (("tokens", ("token",), self.tokens), ("heads", ("head",), self.heads)):
            found = next((i for i, axis in enumerate(layout.axes, 1) if axis in axes), None)
            if some is not None and found is None:
                raise UsageError(
                    f"{what} is {some}, but {self.site} has the axes {layout.axes}, none of {axes[0]}s; "
                    "leave it out, or write an Intervention with a function of your own"
                )
            if some is not None and found is not None:
                chosen[found] = what, some

        def fn(x: Tensor, context: CallContext) -> Tensor:
            new = self.fn(x, context)
            return x if new is None else torch.where(_chosen(self.site, x, chosen), new, x)

        return (Intervention(self.site, fn, self.when, self.spec),)


def _chosen(site: Site, x: Tensor, chosen: Mapping[int, tuple[str, list[int]]]) -> Tensor:
    """Where a tensor is chosen: a mask that broadcasts to it."""
    mask = torch.ones((1,) * x.ndim, dtype=torch.bool, device=x.device)
    for axis, (what, some) in chosen.items():
        size = x.shape[axis]
        if not all(0 <= i < size for i in some):
            raise UsageError(f"{what} {some} are not all at {site}, which has {what} 0 to {size - 1}")
        along = torch.zeros(size, dtype=torch.bool, device=x.device)
        along[some] = True
        mask = mask & along.view([-1 if i == axis else 1 for i in range(x.ndim)])
    return mask


def _fitting(site: Site, new: Tensor, x: Tensor) -> Tensor:
    try:
        return new.to(x).expand_as(x)
    except RuntimeError as error:
        raise UsageError(
            f"values [row, ...] of shape {tuple(new.shape)} do not fit {site}, where {tuple(x.shape)} are "
            "patched; give one row for each that is, or one for all"
        ) from error


@checked
def mean(site: Site | str, values: Mapping[Site, Any] | Tensor, when: When = When()) -> Intervention:
    """Mean-ablate: put in place the mean over the samples of another run, step by step."""
    site = _site(site)
    at, kept = _lookup(site, values)
    return Intervention(site, partial(_averaged, at), when, Spec("mean", kept))


def _averaged(at: _Values, x: Tensor, context: CallContext) -> Tensor:
    return _fitting(at.site, at(context.step).to(x).mean(0, keepdim=True), x)


@checked
def resample(
    site: Site | str, values: Mapping[Site, Any] | Tensor, seed: int = 0, when: When = When()
) -> Intervention:
    """Resample-ablate: each row gets the activation of a random sample of another run (one draw per row)."""
    site = _site(site)
    at, kept = _lookup(site, values)
    return Intervention(site, partial(_resampled, at, seed), when, Spec("resample", {**kept, "seed": seed}))


def _resampled(at: _Values, seed: int, x: Tensor, context: CallContext) -> Tensor:
    pool = at(context.step)
    order = torch.randint(len(pool), (len(x),), generator=generators([seed])[0])
    return _fitting(at.site, pool[order], x)


@dataclass(frozen=True, eq=False)
class _Values:
    """Activations of a site, found by step."""

    site: Site
    tensor: Tensor
    steps: Mapping[int, Step]
    indices: Mapping[int, int]

    def __call__(self, step: Step | None) -> Tensor:
        if step is None:
            return self.tensor
        if step.index not in self.indices:
            raise NotFoundError(
                f"no activation of {self.site} at step {step.index}; there are steps {sorted(self.indices)}"
            )
        then = self.steps.get(step.index, step)
        if not math.isclose(then.t, step.t, rel_tol=1e-5, abs_tol=1e-5):
            raise UsageError(
                f"the values of {self.site} at step {step.index} are of time {then.t:g}, but in this run "
                f"that step is at time {step.t:g}; make both runs with the same steps and scheduler"
            )
        return self.tensor[self.indices[step.index]]


def _lookup(site: Site, values: Mapping[Site, Any] | Tensor) -> tuple[_Values, dict[str, Any]]:
    """Return what finds the values of a step, and the values as parameters of a Spec."""
    if isinstance(values, Tensor):
        if values.ndim < 2 or not values.numel():
            raise UsageError(
                f"the values of {site} have shape {tuple(values.shape)}; they are [step, row, ...], or "
                "[row, ...] in text encoders, and not empty"
            )
        tensor, steps = values, dict[int, Step]()
        indices = {i: i for i in range(len(values))}
    elif site not in values:
        raise NotFoundError(f"the values hold no {site}; {near(str(site), map(str, values))}")
    else:
        tensor = values[site]
        steps = {s.index: s for s in getattr(values, "kept_steps", ())}
        # a plain dictionary of tensors knows no steps: they count from 0, as those of a tensor
        indices = {index: i for i, index in enumerate(steps)} or {i: i for i in range(len(tensor))}

    times = [steps[i].t for i in sorted(steps)]
    found = _Values(site, tensor, steps, indices)
    return found, {"values": tensor, "steps": sorted(indices), "times": times}


def _site(site: Site | str) -> Site:
    return Site(str(site))
