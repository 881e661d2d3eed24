"""The batches of a sweep as units of a store: their keys, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from ...models.base import Model, Prompt
from ...models.errors import StateError, UsageError
from ...models.store.canonical import json_hash
from ...models.store.identity import digest
from ...models.store.ledger import IN_ROW, Kept
from ...models.store.store import Store
from ...models.store.study import Study
from .batching import Memory
from .partition import Batch, ChangedBatch, Finished, PlainBatch, SweepRun


@dataclass(eq=False)
class Keeper(Memory):
    """Keeps the batches of one sweep.

    Args:
        model: the model.
        base: what all of them share (``identity``).
        texts: what was given as text, by the digest of its Prompt. Texts are told by their words and tokens,
            which are the same on every machine; what was given encoded, by its numbers.
        study: where they are kept.
    """

    model: Model
    base: Mapping[str, Any]
    texts: Mapping[str, Any]
    study: Study | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.digest = digest(self.base)
        self._known = dict[Batch, dict[str, Any]]()

    def keys(self, batches: tuple[Sequence[PlainBatch], Sequence[ChangedBatch]]) -> list[str]:
        """Return the key of every unit of a sweep.

        Raises:
            UsageError: for an intervention without a spec.
        """
        return [Store.key(**self.parts(batch)) for some in batches for batch in some]

    def find(self, batch: Batch) -> Finished | None:
        """Return a batch's final latents and rows, if they are in the store."""
        unit = self._opened.find(self.parts(batch))
        return None if unit is None else self._finished(unit)

    def keep(self, batch: Batch, made: Finished, seconds: float) -> Finished:
        """Keep a batch's final latents and rows, and return them."""
        latents, rows = made
        unit = ({"latents": latents}, rows)
        return self._finished(self._opened.put(self.parts(batch), unit, seconds, {"runs": len(batch.runs)}))

    @property
    def _opened(self) -> Study:
        if self.study is None:
            raise StateError("the store is not open")
        return self.study

    def _finished(self, unit: Kept) -> Finished:
        return unit.tensors["latents"].to(self.model.device), unit.rows

    def parts(self, batch: Batch) -> dict[str, Any]:
        """Return all that a batch depends on, the batches that it starts from included; JSON."""
        if batch not in self._known:
            made = self._plain(batch) if isinstance(batch, PlainBatch) else self._changed(batch)
            self._known[batch] = {"base": self.digest, **made}
        return self._known[batch]

    def _plain(self, batch: PlainBatch) -> dict[str, Any]:
        order = list(batch.runs)
        runs = [self._run(run) for run in batch.runs.values()]
        finished = [order.index(key) for key in batch.finished]
        return {"what": "plain runs", "runs": runs, "finished": finished, "last": batch.last}

    def _changed(self, batch: ChangedBatch) -> dict[str, Any]:
        runs = [self._run(run) for run in batch.runs.values()]
        after = [json_hash(self.parts(one)) for one in batch.after]
        known = list(batch.known)
        return {"what": "changed runs", "runs": runs, "start": batch.start, "known": known, "after": after}

    def _run(self, run: SweepRun) -> dict[str, Any]:
        reads = [self._read(p) for p in (run.prompt, *run.companions)]
        check_specs(run, "a store cannot tell whether it is still the same one", "store")
        shared = {"shared": True} if run.shared else {}
        return {"reads": reads, "seed": run.seed, "does": [list(i.key) for i in run.interventions], **shared}

    def _read(self, prompt: str | Prompt) -> Any:
        if isinstance(prompt, str):
            return prompt
        return self.texts.get(prompt.digest, prompt.digest)


def on_disk(model: Model, batches: Sequence[Batch], *, pictures: bool = False) -> tuple[int, int]:
    """Return how many files a store makes of batches, beside its database, and how many bytes it keeps.

    Args:
        model: the model.
        batches: of a sweep; their final latents are kept.
        pictures: whether their pictures are kept as well.
    """
    each = [prod(model.latent_shape) * model.dtype.itemsize]
    each += [model.image_channels * prod(model.size) * torch.float32.itemsize] if pictures else []
    sizes = [batch.kept * size for batch in batches for size in each]
    return sum(size >= IN_ROW for size in sizes), sum(sizes)


def check_specs(run: SweepRun, why: str, leave_out: str) -> None:
    """Raise UsageError for interventions of which nobody can tell what they do."""
    for i in run.interventions:
        if i.spec is None:
            name = getattr(i.fn, "__qualname__", type(i.fn).__name__)
            raise UsageError(
                f"the intervention {name} at {i.site} is a function, and {why}; give it a spec, whose "
                "parameters say all that it depends on: "
                f"Intervention(site, fn, when, spec=Spec({name!r}, {{'factor': 2.0}})). "
                f"Or leave out {leave_out}"
            )


def texts_of(runs: Sequence[SweepRun], encoded: Sequence[SweepRun]) -> dict[str, Any]:
    """Return what was given as text, by the digest of the Prompt that it was encoded to."""
    found: dict[str, Prompt] = {}
    for given, made in zip(runs, encoded, strict=True):
        pairs = zip((given.prompt, *given.companions), (made.prompt, *made.companions), strict=True)
        for text, prompt in pairs:
            if isinstance(text, str) and isinstance(prompt, Prompt):
                found.setdefault(prompt.digest, prompt)
    together = json_hash([prompt.text for prompt in found.values()])  # one batch, which rounds as one
    return {digest: {**told(prompt), "encoded": together} for digest, prompt in found.items()}


def told(prompt: Prompt) -> dict[str, Any]:
    """A text as it is read; the model's weights, which are in the key, say what is made of it."""
    read = {name: list(words.tokens) for name, words in prompt.read.items()}
    shape = list(prompt.embeds.shape)
    return {"text": prompt.text, "tokens": json_hash([list(prompt.tokens), read]), "shape": shape}
