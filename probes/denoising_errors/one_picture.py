"""One picture: draw after draw, until its standard errors are as small as was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.levels import Step
from ...models.store.fingerprint import tensor_hash
from ...models.store.identity import digest, network_identity
from ...models.store.provenance import provenance
from ...models.store.store import Store
from .result import Estimator, density
from .rows import Gram, Maps, reduced
from .strata import Strata, standard_error


@dataclass(frozen=True, eq=False)
class Plan:
    """What all pictures of a bank have in common."""

    model: Model
    pairs: Sequence[tuple[int, int]]
    estimator: Estimator
    how: Strata
    log_snr: tuple[float, ...]
    steps: Sequence[Step]
    width: float
    batch: int
    store: Store | None
    about: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Model,
        how: Strata,
        *,
        batch: int,
        store: str | Path | None,
        pairs: Sequence[tuple[int, int]] = (),
        estimator: Estimator = "standard",
    ) -> Plan:
        """Ask a model for its levels, and where it comes from.

        Raises:
            ValueError: for a range that the model was not trained on, and a batch of nothing.
        """
        if batch < 1:
            raise UsageError(f"batch is {batch}; it holds at least 1 row")
        levels, width = how.middles(model)
        steps = [model.step_at(log_snr=level) for level in levels]
        kept = None if store is None else Store(Path(store))
        return cls(model, pairs, estimator, how, levels, steps, width, batch, kept, provenance(model))

    @cached_property
    def network(self) -> str:
        """A hash of what the model computes with, beyond its weights."""
        return digest(network_identity(self.model))


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was found on one picture."""

    gram: Float[Tensor, "draw level condition condition"]
    maps: Float[Tensor, "level pair estimator y x"]
    rows: int
    reached: bool


@dataclass(frozen=True, eq=False)
class OnePicture:
    """A picture, its number, and what the network reads beside it."""

    plan: Plan
    clean: Tensor
    index: int
    prompts: Sequence[Prompt]

    @cached_property
    def distinct(self) -> dict[str, Prompt]:
        """The conditions that differ, by what they are."""
        return {p.digest: p for p in self.prompts}

    @cached_property
    def columns(self) -> list[int]:
        """Where each condition stands among the distinct ones."""
        order = list(self.distinct)
        return [order.index(p.digest) for p in self.prompts]

    def drawn(self, show: Progress) -> Drawn:
        """Draw until standard errors are as small as was asked for, or no more is to be drawn."""
        how, grams, maps = self.plan.how, list[Tensor](), torch.zeros(())
        reached = not how.adaptive
        for draw in range(how.last):
            gram, kept = self.one(draw, show)
            grams.append(gram)
            maps = maps + kept
            if draw + 1 >= how.draws:
                reached = reached or self._reached(torch.stack(grams))
                if reached:
                    break
        rows = 2 * len(grams) * len(self.plan.steps) * len(self.distinct)
        found = torch.stack(grams)[..., self.columns, :][..., self.columns]
        return Drawn(found, maps / len(grams), rows, reached)

    def one(self, draw: int, show: Progress) -> tuple[Gram, Maps]:
        """One noise for each level, of the distinct conditions; as many levels together as a batch holds."""
        size = max(1, self.plan.batch // (2 * len(self.distinct)))
        chunks, parts = batches(len(self.plan.steps), size), []
        for n, some in enumerate(chunks, 1):
            parts.append(self._chunk(draw, range(some.start, some.stop)))
            show(n, len(chunks), f"picture {self.index}, draw {draw}")
        return torch.cat([gram for gram, _ in parts]), torch.cat([maps for _, maps in parts])

    def _chunk(self, draw: int, levels: range) -> tuple[Gram, Maps]:
        plan, at = self.plan, self.columns
        seeds = plan.how.seeds(self.index, draw, levels)
        steps = [plan.steps[k] for k in levels]
        pairs = [(at[a], at[b]) for a, b in plan.pairs]

        def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
            noise, prompts = plan.model.noise(seeds), list(self.distinct.values())
            gram, maps = reduced(plan.model, self.clean, noise, steps, prompts, pairs=pairs, batch=plan.batch)
            return {"gram": gram, "maps": maps}, {}

        if plan.store is None:
            made = make()[0]
        else:
            what = {"what": "denoising errors", "latents": tensor_hash(self.clean), "seeds": seeds,
                    "steps": [[s.t, s.sigma] for s in steps], "conditions": list(self.distinct),
                    "pairs": pairs, "batch": plan.batch, "network": plan.network}  # fmt: skip
            made = dict(plan.store.make({**plan.about, **what}, make).tensors)
        return made["gram"], made["maps"]

    def _reached(self, gram: Tensor) -> bool:
        """Whether every pair is known as well as was asked for."""
        for i, j in self.plan.pairs:
            found = density(gram, self.columns[i], self.columns[j], self.plan.estimator) * self.plan.width
            if not self.plan.how.reached(float(found.mean(0).sum()), float(standard_error(found))):
                return False
        return True
