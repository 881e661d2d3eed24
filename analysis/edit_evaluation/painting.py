"""Pictures of many prompts with the same seeds, told as one piece of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.base import Model
from ...models.progress import Progress, part
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
            progress=part(self.progress, self.done, len(runs), self.total, "runs, before and after"),
        )
        self.done += len(runs)
        with torch.no_grad():
            parts = [
                self.model.decode(x).cpu() for x in torch.split(swept.latents, min(self.batch, len(runs)))
            ]
        return dict(
            zip(
                prompts,
                torch.cat(parts).view(len(prompts), len(self.seeds), *parts[0].shape[1:]),
                strict=True,
            )
        )
