"""A sweep and its batches as messages to workers: prompts and large patches by name, sent once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ...models.base import Model, Prompt, SamplerState
from ...models.errors import UsageError
from ...models.run.sampling import SamplingOptions
from ..intervene import Intervention
from .partition import Batch, ChangedBatch, Key, PlainBatch, SweepRun

INLINE = 2**14
"""Bytes of an intervention's values up to which they travel with the batch."""
Moments: TypeAlias = Mapping[tuple[Key, int], SamplerState]
"""Where changed runs start from plain ones."""


class Carried(Protocol):
    """An edit, as a unit carries it."""

    def apply(self, model: Any) -> None:
        """Put it on a model."""

    def revert(self, model: Any) -> None:
        """Take it back."""


@dataclass(frozen=True, eq=False)
class Job:
    """What all batches of a sweep share.

    Args:
        loaded: how the model was opened.
        size: of its pictures.
        edits: that are on it, oldest first.
        settings: how it is sampled.
        base: what it computes with (``identity``).
    """

    loaded: Mapping[str, Any]
    size: tuple[int, ...]
    edits: Sequence[Carried]
    settings: SamplingOptions
    base: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Message:
    """One batch; its runs read and do what is named."""

    batch: Batch
    reads: Mapping[str, Any]
    does: Mapping[str, Any]


class Sender:
    """Turns batches into messages.

    Args:
        send: sends something once, and returns what stands for it.
    """

    def __init__(self, send: Callable[[Any], Any]) -> None:
        self.send = send
        self.sent: dict[str, Any] = {}

    def message(self, batch: Batch) -> Message:
        """Return the message of a batch; its interventions have specs."""
        reads: dict[str, Any] = {}
        does: dict[str, Any] = {}
        for run in (*batch.runs.values(), *_beside(batch)):
            for prompt in (run.prompt, *run.companions):
                if isinstance(prompt, Prompt):
                    reads[prompt.digest] = self._once(prompt.digest, placed(prompt, torch.device("cpu")))
            for i in run.interventions:
                does[_name(i)] = self._once(_name(i), i) if _size(i) > INLINE else i
        return Message(_with(batch, _named), reads, does)

    def _once(self, name: str, thing: Any) -> Any:
        if name not in self.sent:
            self.sent[name] = self.send(thing)
        return self.sent[name]


def read(message: Message, device: torch.device, fetch: Callable[[Any], Any]) -> Batch:
    """Return the batch of a message; ``fetch`` returns what was sent."""
    reads = {name: placed(fetch(prompt), device) for name, prompt in message.reads.items()}
    does = {name: i if isinstance(i, Intervention) else fetch(i) for name, i in message.does.items()}

    def whole(run: SweepRun) -> SweepRun:
        prompt, *companions = (reads.get(str(p), p) for p in (run.prompt, *run.companions))
        named = tuple(does[i.fn.name] for i in run.interventions if isinstance(i.fn, Named))
        return replace(run, prompt=prompt, companions=tuple(companions), interventions=named)

    return _with(message.batch, whole)


def placed(prompt: Prompt, device: torch.device) -> Prompt:
    """Return a prompt whose numbers lie on a device."""
    kinds = ("embeds", "pooled", "mask")
    found: dict[str, Tensor] = {
        n: t.detach().to(device) for n in kinds if (t := getattr(prompt, n)) is not None
    }
    return replace(prompt, **found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Named:
    """Stands for what an intervention does."""

    name: str

    def __call__(self, *_: Any) -> None:
        """Change nothing; a batch is read before it is made."""


def _named(run: SweepRun) -> SweepRun:
    prompt, *companions = (p if isinstance(p, str) else p.digest for p in (run.prompt, *run.companions))
    does = tuple(Intervention(i.site, Named(_name(i)), i.when) for i in run.interventions)
    return replace(run, prompt=prompt, companions=tuple(companions), interventions=does)


def _name(i: Intervention) -> str:
    return "|".join(i.key)


def _size(i: Intervention) -> int:
    values = i.spec.parameters.values() if i.spec else ()
    return sum(v.nbytes for v in values if isinstance(v, Tensor))


def _beside(batch: Batch) -> Sequence[SweepRun]:
    return batch.beside if isinstance(batch, ChangedBatch) else ()


def _with(batch: Batch, change: Callable[[SweepRun], SweepRun]) -> Batch:
    """The same batch of other runs; what it starts from comes as moments."""
    runs = {key: change(run) for key, run in batch.runs.items()}
    if isinstance(batch, PlainBatch):
        return replace(batch, runs=runs)
    return replace(batch, runs=runs, after=(), beside=tuple(map(change, batch.beside)))


def check_loaded(model: Model) -> Mapping[str, Any]:
    """Return how a model was opened.

    Raises:
        UsageError: if it was opened from an object, which no other process can do.
    """
    if model.loaded is None:
        raise UsageError(
            f"{model.name} was opened from an object in this process, and a worker cannot open it; save it "
            "where every worker sees it (pipe.save_pretrained(folder)) and open that: denoscope.load(folder)"
        )
    return model.loaded
