"""What is done at a site while a model runs, and the context in which it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ..arguments import check_fields, checked
from ..errors import DenoscopeError, StateError, UsageError, short_traceback
from ..run.context import TEXT, CallContext, When
from ..run.tables import indices
from ..site import Site
from .account import Account, AccountError
from .hooks import hooked
from .unchanged import digest_of

if TYPE_CHECKING:
    from ..adapter import Adapter

Change: TypeAlias = Callable[[Tensor, CallContext], Tensor | None]
Rows: TypeAlias = slice | list[int]


@dataclass(frozen=True, eq=False)
class Spec:
    """What an intervention does, as a value: equal specs do the same.

    Args:
        kind: its name, "scale".
        parameters: numbers, texts, lists of them, and tensors.
    """

    kind: str
    parameters: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """A hash of kind and parameters as they are now; tensors count bit by bit."""
        tensors = [value for value in self.parameters.values() if isinstance(value, Tensor)]
        return digest_of(self, tensors, self._taken)

    def _taken(self) -> str:
        plain: dict[str, Any] = {"kind": self.kind}
        for name, value in self.parameters.items():
            plain[name] = _tensor_digest(value) if isinstance(value, Tensor) else value
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@runtime_checkable
class Probe(Protocol):
    """What may be given wherever interventions go: an Intervention, or an Observer, which is several."""

    @property
    def when(self) -> When:
        """Which steps, guidance branch and samples."""
        ...

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        """Return the interventions that it is in one model."""
        ...


@dataclass(frozen=True)
class Intervention:
    """Something done at a site.

    Args:
        site: where.
        fn: gets the tensor of the rows that ``when`` speaks of, [row, ...], and a ``CallContext``: their
            step, branch, samples and prompts; returns their new values, or None to leave them. It is called
            once for each branch.
        when: which steps, guidance branch and samples; by default every step, the conditional rows.
        spec: what ``fn`` does, as a value; without one it is known in this process alone.
    """

    site: Site
    fn: Change
    when: When = When()
    spec: Spec | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site(str(self.site)))
        check_fields(self)

    @checked
    def on(self, *rows: int) -> Intervention:
        """Return the same intervention for some samples of a batch only."""
        return replace(self, when=replace(self.when, rows=rows))

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:  # noqa: ARG002
        """Return itself alone; it is the same in every model."""
        return (self,)

    @property
    def described(self) -> dict[str, Any]:
        """What it does, where and when, as JSON for provenance; a function without a spec by its name."""
        name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        does = {"does": self.spec.kind, "digest": self.spec.digest} if self.spec else {"does": name}
        when = {n: v for n in ("branch", "rows") if (v := getattr(self.when, n)) is not None}
        steps = {} if self.when.steps is None else {"steps": sorted(self.when.steps)}
        return {"site": str(self.site), **does, **steps, **when}

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for interventions that do the same; across processes where there is a ``spec``."""
        steps = None if self.when.steps is None else sorted(self.when.steps)
        does = self.spec.digest if self.spec else f"function {id(self.fn)}"
        return (str(self.site), str(steps), str(self.when.branch), str(self.when.rows), does)


@checked
@contextmanager
def intervening(model: Adapter, *interventions: Probe, account: Account | None = None) -> Iterator[Account]:
    """Let interventions act while the context lasts; the model is as it was afterwards, error or not.

    Interventions at one site act in the order given.

    Args:
        model: an opened model.
        interventions: what to do where.
        account: keep this account, which the caller closes; by default a new one, closed at the end.

    Yields:
        The account of what acted.

    Raises:
        LookupError: if a site is not in the model.
        ValueError: if a text-encoder site is given steps, or (later) an intervention returns another shape,
            or changes what the denoiser does not read.
        RuntimeError: if what holds a site was compiled, or it is reached outside a run. An
            ``AccountError`` if something acts elsewhere, more often, less often or on other rows than it
            should, or never.
    """
    acting = parts_of(model, interventions)
    for i in acting:
        if i.site.component.startswith(TEXT) and i.when.steps is not None:
            raise UsageError(f"{i.site} is in a text encoder, which has no steps; leave out When.steps")
    own = account or Account(acting)
    handlers = [(i.site, _handler(model, i, k, own)) for k, i in enumerate(acting)]
    with hooked(model, handlers), model.accounted(own):
        yield own
    if account is None:
        own.close()


def parts_of(model: Adapter, probes: Iterable[Probe]) -> tuple[Intervention, ...]:
    """Return the interventions that several probes are in one model, in the order given."""
    return tuple(part for probe in probes for part in probe.parts(model))


def _handler(model: Adapter, intervention: Intervention, index: int, account: Account) -> Any:
    site, when = intervention.site, intervention.when

    def handle(x: Any) -> tuple[Rows, Tensor] | None:
        call = model.call
        if model.live.suspended:
            return None
        if call is None:
            raise StateError(f"{site} was reached outside a run; call model.sample(), encode() or trace()")
        if x.shape[0] != call.n_rows:
            raise AccountError(
                f"{site} carries {x.shape[0]} rows, but the call of {call.part} has {call.n_rows}, so whose "
                "they are cannot be known; likely causes: a module that joins or splits the batch"
            )
        selected = list(call.select(when, site.component))
        account.note(index, [context for _, context in selected])
        made = [(rows, _apply(intervention, x, rows, context)) for rows, context in selected]
        changed = [(rows, new) for rows, new in made if new is not None]
        if changed:
            call.check_read(site)  # watching it is no mistake
        return _together(changed)

    return handle


def _apply(intervention: Intervention, x: Any, rows: list[int], context: CallContext) -> Tensor | None:
    at = _where(rows)
    before = x[indices(at, x.device)] if isinstance(x, Tensor) else x[at]
    try:
        new = intervention.fn(before, context)
    except Exception as error:
        if not isinstance(error, DenoscopeError):
            _tell(error, intervention, before, context)
        raise
    if new is not None and new.shape != before.shape:
        raise UsageError(
            f"intervention at {intervention.site} returned {tuple(new.shape)}, expected {tuple(before.shape)}"
        )
    return new


def _tell(error: Exception, intervention: Intervention, x: Tensor, context: CallContext) -> None:
    """Say on a foreign error where it happened; a notebook shows that, not the frames of the network."""
    name = getattr(intervention.fn, "__qualname__", type(intervention.fn).__name__)
    step = "" if context.step is None else f", step {context.step.index}"
    error.add_note(f"in {name}, given {tuple(x.shape)} at {intervention.site}{step}")
    with suppress(AttributeError):  # a class may have no room for it
        error._render_traceback_ = partial(short_traceback, error)  # type: ignore[attr-defined]


def _together(changes: Sequence[tuple[list[int], Tensor]]) -> tuple[Rows, Tensor] | None:
    if not changes:
        return None
    rows = [r for some, _ in changes for r in some]
    return _where(rows), changes[0][1] if len(changes) == 1 else torch.cat([new for _, new in changes])


def _where(rows: list[int]) -> Rows:
    return slice(rows[0], rows[-1] + 1) if rows == list(range(rows[0], rows[-1] + 1)) else rows


def _tensor_digest(x: Tensor) -> str:
    data = x.detach().cpu().contiguous()
    head = f"{data.dtype}{tuple(data.shape)}".encode()
    return hashlib.sha256(head + data.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
