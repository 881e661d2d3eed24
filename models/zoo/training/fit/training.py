"""What every training script shares: a clock, a log, checkpoints, and the choice of device."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ....opening.placing import has_bfloat16

log = logging.getLogger(__name__)

Network: TypeAlias = Any
"""A model of diffusers' classes, whose attributes a type checker cannot see."""


def device_and_dtype(device: str | None = None) -> tuple[torch.device, torch.dtype]:
    """Where to train (the GPU if there is one) and the number format of autocast."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    fast = chosen.type != "cpu" or has_bfloat16()
    return chosen, torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in ``dtype``; float32 is what they are in without it."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


class TrainingRun:
    """One resumable training run in one folder.

    The time budget counts training time over all starts, so a stopped run goes on where it was.

    Args:
        folder: holds ``log.csv``, ``run.json`` and ``checkpoint.safetensors``.
        minutes: the time budget.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seconds, self.before = folder, minutes * 60, 0.0
        self.step = self.samples = 0
        state = folder / "run.json"
        if state.is_file():
            kept = json.loads(state.read_text())
            self.step, self.before = kept["step"], kept["seconds"]
            self.samples = kept.get("samples", 0)
        self.start = self.saved = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.before + time.monotonic() - self.start

    @property
    def fraction(self) -> float:
        """How much of the budget is used, 0 to 1."""
        return min(1.0, self.elapsed / self.seconds)

    @property
    def done(self) -> bool:
        """Whether the budget is used up."""
        return self.elapsed >= self.seconds

    def rate(self, peak: float, warmup: int = 100, flat: float = 0.4) -> float:
        """Learning rate now: a short rise, a plateau, then a straight fall to 2 % of the peak."""
        rise = min(1.0, (self.step + 1) / warmup)
        fall = 1.0 if self.fraction < flat else max(0.02, (1 - self.fraction) / (1 - flat))
        return peak * rise * fall

    def restore(self, *modules: nn.Module) -> bool:
        """Fill modules from the checkpoint, if there is one."""
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            return False
        kept = load_file(path)
        for i, module in enumerate(modules):
            module.load_state_dict(
                {k.removeprefix(f"{i}."): v for k, v in kept.items() if k.startswith(f"{i}.")}
            )
        log.info("going on from step %d", self.step)
        return True

    def save(self, *modules: nn.Module) -> None:
        """Write modules and the clock."""
        tensors = {
            f"{i}.{k}": v.detach().cpu().clone()
            for i, m in enumerate(modules)
            for k, v in m.state_dict().items()
        }
        partial = self.folder / "checkpoint.partial"
        save_file(tensors, partial)
        partial.replace(self.folder / "checkpoint.safetensors")
        state = {"step": self.step, "samples": self.samples, "seconds": self.elapsed}
        (self.folder / "run.json").write_text(json.dumps(state))
        self.saved = time.monotonic()

    def due(self, seconds: float = 120) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self.saved > seconds

    def note(self, values: Mapping[str, float | Tensor]) -> None:
        """Append a row to ``log.csv``."""
        row = {
            "step": self.step,
            "seconds": round(self.elapsed, 1),
            **{k: f"{float(v):.5g}" for k, v in values.items()},
        }
        path = self.folder / "log.csv"
        new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        log.info("%s", row)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, decay: float = 0.999) -> None:
    """Move the running average of the weights towards the model."""
    rate = 1 - min(decay, (step + 1) / (step + 20))
    for kept, now in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(now.to(kept), rate)
