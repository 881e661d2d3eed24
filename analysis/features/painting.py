"""Pictures of the same samples in several ways: plain, with interventions, of other texts, under an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt, check_run
from ...models.errors import UsageError, WrongTypeError
from ...models.progress import Progress
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.run.state import SamplerState
from ...probes.intervene import Intervention
from ...probes.sweep.sweeping import SweepRun, Swept, sweep
from ..directions.evaluating import Applied
from ..metrics import Outcome

Acting: TypeAlias = Sequence[Sequence[Intervention]]
"""For each sample what acts; nothing is an empty list."""
Way: TypeAlias = Acting | Sequence[str] | Applied | SamplerState
"""What acts on each sample, or another text for each, an edit of weights, or another start of all samples."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Which samples are painted, and how.

    Args:
        model: an opened model.
        prompts: one a sample.
        seeds: one a sample.
        batch: samples in one batch.
        settings: how it is sampled.
        progress: called with (done, total, what).
    """

    model: Model
    prompts: Sequence[str | Prompt]
    seeds: Sequence[int]
    batch: int
    settings: SamplingOptions
    progress: Progress | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Sequence[str | Prompt] | None,
        seeds: Sequence[int],
        batch: int,
        settings: SamplingOptions,
    ) -> Samples:
        """Return those that were asked for.

        Raises:
            UsageError: for no samples, and prompts that are not one for each seed.
        """
        given = [""] * len(seeds) if prompts is None else prompts
        check_run(len(given), seeds)
        return cls(model.sized(Sampling(**settings).size), given, seeds, batch, settings)

    def painted(self, name: str, way: Way | None = None) -> Swept:
        """Paint all samples in one way; None is plain.

        Raises:
            UsageError: for a way that is not one thing for each sample.
            WrongTypeError: for one that is nothing of all that.
        """
        if isinstance(way, Applied):
            with way.applied(self.model):
                return self.painted(name)
        if isinstance(way, SamplerState):
            return self.begun(name, way)
        return self.swept(self.runs(name, [()] * len(self.seeds) if way is None else way))

    @torch.no_grad()
    def begun(self, name: str, start: SamplerState) -> Swept:
        """Paint all samples from another start; errors as in ``painted``."""
        if len(start.latents) != len(self.seeds):
            raise UsageError(f"{name!r} starts {len(start.latents)} samples; there are {len(self.seeds)}")
        latents, rows = [], 0
        for some in batches(len(self.seeds), self.batch):
            texts, seeds = self.prompts[some], self.seeds[some]
            own = start.rows(range(len(self.seeds))[some])
            for state in self.model.sample(texts, seeds=seeds, start=own, **self.settings):
                rows += state.rows
            latents.append(state.latents)
        return Swept(torch.cat(latents), rows)

    def swept(self, runs: Sequence[SweepRun]) -> Swept:
        """Paint runs, of one way or of several."""
        return sweep(self.model, runs, batch=self.batch, progress=self.progress, **self.settings)

    def runs(self, name: str, way: Acting | Sequence[str]) -> list[SweepRun]:
        """Return the run of each sample in one way; errors as in ``painted``."""
        if not isinstance(way, Sequence) or isinstance(way, str) or len(way) != len(self.seeds):
            raise UsageError(
                f"{name!r} is {way!r:.80}; give for each of {len(self.seeds)} samples what acts on it ([] is "
                "nothing) or its text, or an edit, or a start of all"
            )
        runs = []
        for prompt, seed, one in zip(self.prompts, self.seeds, way, strict=True):
            if isinstance(one, str):
                runs.append(SweepRun(one, seed))
                continue
            acting = tuple(i for i in one if isinstance(i, Intervention)) if isinstance(one, Sequence) else ()
            if not isinstance(one, Sequence) or len(acting) < len(one):
                raise WrongTypeError(f"{name!r} has {one!r:.80} for a sample; give interventions, or a text")
            runs.append(SweepRun(prompt, seed, acting))
        return runs

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Float[Tensor, "sample ..."]:
        """Return pictures of latents, in 0..1."""
        parts = batches(len(latents), self.batch)
        return torch.cat([self.model.decode(latents[some]) for some in parts])

    def outcome(self, latents: Tensor, plain: Tensor) -> Outcome:
        """Return finished runs as a metric sees them."""
        texts = [p for p in self.prompts if isinstance(p, str)]
        read = iter(self.model.encode(texts) if texts else ())
        prompts = tuple(next(read) if isinstance(p, str) else p for p in self.prompts)
        return Outcome(latents, prompts, self.model.decode, plain)
