"""Change activations while a model runs; leave nothing behind.

One mechanism for reading and writing: recording is an intervention that returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..models.base import Model
from ..models.places.hooks import hooked
from ..models.run.levels import Step, When
from ..models.site import Site

Change = Callable[[Tensor, Step | None], Tensor | None]


class Probe(Protocol):
    """What may be given wherever interventions go: an Intervention, or an Observer, which is several."""

    @property
    def when(self) -> When:
        """Which steps, guidance branch and samples."""
        ...

    def within(self, model: Model) -> AbstractContextManager[tuple[Intervention, ...]]:
        """Give the interventions that it is in one model, for as long as the context lasts."""
        ...


@dataclass(frozen=True)
class Intervention:
    """Something done at a site.

    Args:
        site: where.
        fn: gets the tensor of the rows that ``when`` speaks of, [row, ...], and the Step (None inside a
            text encoder); returns their new values, or None to leave them.
        when: which steps, guidance branch and samples; by default every step, the conditional rows.
    """

    site: Site
    fn: Change
    when: When = When()

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site(str(self.site)))

    def on(self, *rows: int) -> Intervention:
        """Return the same intervention for some samples of a batch only."""
        return replace(self, when=replace(self.when, rows=rows))

    def within(self, model: Model) -> AbstractContextManager[tuple[Intervention, ...]]:  # noqa: ARG002
        """Give itself; it is the same in every model."""
        return nullcontext((self,))


@contextmanager
def intervening(model: Model, *interventions: Probe) -> Iterator[None]:
    """Let interventions act while the context lasts; the model is as it was afterwards, error or not.

    Interventions at one site act in the order given.

    Raises:
        LookupError: if a site is not in the model.
        ValueError: if a text-encoder site is given steps, or (later) an intervention returns another shape.
        RuntimeError: if a component was compiled, or a site is reached outside a run.
    """
    with ExitStack() as stack:
        acting = [i for probe in interventions for i in stack.enter_context(probe.within(model))]
        for i in acting:
            if i.site.component.startswith("text_encoder") and i.when.steps is not None:
                raise ValueError(f"{i.site} is in a text encoder, which has no steps; leave out When.steps")
        stack.enter_context(hooked(model, [(i.site, _handler(model, i)) for i in acting]))
        yield


def _handler(model: Model, intervention: Intervention) -> Any:
    site, when, fn = intervention.site, intervention.when, intervention.fn

    def handle(x: Any) -> tuple[slice | list[int], Tensor] | None:
        now = model.now
        if now is None:
            raise RuntimeError(f"{site} was reached outside a run; call model.sample(), encode() or trace()")
        rows = now.select(when)
        if rows is None:
            return None
        where = slice(rows[0], rows[-1] + 1) if rows == list(range(rows[0], rows[-1] + 1)) else rows
        seen = x[where]
        new = fn(seen, now.step)
        if new is None:
            return None
        if new.shape != seen.shape:
            raise ValueError(
                f"intervention at {site} returned {tuple(new.shape)}, expected {tuple(seen.shape)}"
            )
        return where, new

    return handle


def scale(site: Site | str, factor: float, when: When = When()) -> Intervention:
    """Multiply what passes through a site."""
    return Intervention(_site(site), lambda x, _: factor * x, when)


def zero(site: Site | str, when: When = When()) -> Intervention:
    """Zero-ablate a site."""
    return Intervention(_site(site), lambda x, _: torch.zeros_like(x), when)


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
    at = _lookup(site, values)

    def fn(x: Tensor, step: Step | None) -> Tensor:
        new = at(step).to(x).expand_as(x)
        if tokens is None:
            return new
        y = x.clone()
        y[:, list(tokens)] = new[:, list(tokens)]
        return y

    return Intervention(site, fn, when)


def mean(site: Site | str, values: Mapping[Site, Any] | Tensor, when: When = When()) -> Intervention:
    """Mean-ablate: put in place the mean over the samples of another run, step by step."""
    site = _site(site)
    at = _lookup(site, values)
    return Intervention(site, lambda x, step: at(step).mean(0, keepdim=True).to(x).expand_as(x), when)


def resample(
    site: Site | str, values: Mapping[Site, Any] | Tensor, seed: int = 0, when: When = When()
) -> Intervention:
    """Resample-ablate: each row gets the activation of a random sample of another run (one draw per row)."""
    site = _site(site)
    at = _lookup(site, values)

    def fn(x: Tensor, step: Step | None) -> Tensor:
        pool = at(step)
        order = torch.randint(len(pool), (len(x),), generator=torch.Generator().manual_seed(seed))
        return pool[order].to(x)

    return Intervention(site, fn, when)


def _lookup(site: Site, values: Mapping[Site, Any] | Tensor) -> Callable[[Step | None], Tensor]:
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
            raise LookupError(
                f"no activation of {site} at step {step.index}; there are steps {sorted(indices)}"
            )
        return tensor[indices[step.index]]

    return at


def _site(site: Site | str) -> Site:
    return Site(str(site))
