"""Pictures, painted once: those of the clean model are kept on disk and shared by all methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.progress import quiet
from ..models.store.store import Store
from ..probes.sweep.sweeping import SweepRun, sweep
from .planning import Plan


@dataclass(eq=False)
class Painter:
    """Paints texts, each with all its seeds in one batch, so that no picture depends on what else is painted.

    Args:
        plan: what is compared.
        store: where the clean model's pictures are kept.
        tell: called with how many pictures were painted, or found.
    """

    plan: Plan
    store: Store
    tell: Callable[[int], None]

    def clean(self, texts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return what the model as it was opened paints, bytes [seed, 3, height, width] for each text.

        They are taken from the store where they are there; the model must be without edits.
        """
        return {text: self._kept(text, seeds) for text in texts}

    def now(self, texts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return what the model paints as it is now, bytes [seed, 3, height, width] for each text."""
        return {text: self._painted(text, seeds) for text in texts}

    def parts(self, text: str, seeds: Sequence[int]) -> dict[str, Any]:
        """What the clean pictures of a text depend on."""
        return {"what": "clean", **self.plan.about, "prompt": text, "seeds": list(seeds)}

    def _kept(self, text: str, seeds: Sequence[int]) -> Tensor:
        unit = self.store.make(
            self.parts(text, seeds), lambda: ({"pictures": self._painted(text, seeds)}, {"prompt": text})
        )
        return unit.tensors["pictures"]

    def _painted(self, text: str, seeds: Sequence[int]) -> Tensor:
        model, plan = self.plan.model, self.plan
        runs = [SweepRun(text, seed) for seed in seeds]
        how: dict[str, Any] = {"steps": plan.steps, "guidance": plan.guidance}
        swept = sweep(model, runs, batch=len(runs), progress=quiet, **how)
        with torch.no_grad():
            images = model.decode(swept.latents).cpu()
        self.tell(len(runs))
        return rounded(images)


def rounded(images: Tensor) -> Tensor:
    """Return pictures in 0..1 as a PNG holds them: what is kept and what is fresh are judged alike."""
    return (images.detach().float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)


def shown(pixels: Tensor) -> Tensor:
    """Return pictures of bytes as a judge takes them, in 0..1."""
    return pixels.float() / 255


def alike(plan: Plan, texts: Sequence[str]) -> dict[str, str]:
    """Return for each text the first one that every tokenizer reads as it.

    Most CLIPs read capitals as small letters: such texts are painted once.

    Raises:
        ValueError: for a text that the model cannot read.
    """
    with torch.no_grad():
        read = plan.model.encode(list(texts))
    first: dict[tuple[tuple[str, ...], ...], str] = {}
    encoders = plan.model.text_encoders
    return {
        text: first.setdefault(tuple(prompt.of(e).tokens for e in encoders), text)
        for text, prompt in zip(texts, read, strict=True)
    }
