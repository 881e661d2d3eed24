"""Pictures of many prompts with the same seeds, told as one piece of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.base import Model
from ...models.progress import Progress, part
from ...models.store.fingerprint import tensor_hash
from ...models.store.identity import digest, network_identity
from ...models.store.study import Study
from ...probes.sweep.sweeping import SweepRun, sweep


@dataclass
class Painter:
    """Paints each prompt with each seed, and counts."""

    model: Model
    seeds: Sequence[int]
    steps: int
    guidance: float | None
    batch: int
    progress: Progress
    total: int
    study: Study | None = None
    done: int = 0

    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the pictures of each prompt, [seed, 3, height, width]."""
        if not prompts:
            return {}
        runs = [SweepRun(prompt, seed) for prompt in prompts for seed in self.seeds]
        swept = sweep(
            self.model,
            runs,
            steps=self.steps,
            guidance=self.guidance,
            batch=self.batch,
            store=self.study,
            progress=part(self.progress, self.done, len(runs), self.total, "runs, before and after"),
        )
        self.done += len(runs)
        parts = [self._decoded(x) for x in torch.split(swept.latents, min(self.batch, len(runs)))]
        return dict(
            zip(
                prompts,
                torch.cat(parts).view(len(prompts), len(self.seeds), *parts[0].shape[1:]),
                strict=True,
            )
        )

    def _decoded(self, latents: Tensor) -> Tensor:
        """The pictures of some latents; those of a study are kept."""

        def make() -> tuple[dict[str, Tensor], int]:
            with torch.no_grad():
                return {"pictures": self.model.decode(latents).cpu()}, 0

        if self.study is None:
            return make()[0]["pictures"]
        parts = {"what": "pictures", "latents": tensor_hash(latents), "format": str(latents.dtype)}
        network = digest(network_identity(self.model))
        return self.study.make({**parts, "network": network}, make).tensors["pictures"]
