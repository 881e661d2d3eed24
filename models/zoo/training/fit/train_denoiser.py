"""Train a denoiser on its objective: a running average of the weights, all else frozen.

On a GPU one process with large batches; on a CPU several one-thread processes that share the weights without
locks (Hogwild), which loses little and never waits for a busy core.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....errors import UsageError
from ..data.pictures import Pictures
from ..data.sampling import Item, Mix, items
from .denoisers import Text
from .inputs import Inputs
from .lowrank import in_few_directions, whole
from .objectives import Objective, Velocity
from .skips import skips_dropped
from .training import Network, TrainingRun, device_and_dtype, follow


@dataclass(frozen=True)
class Settings:
    """Choices for one run."""

    minutes: float = 60
    batch: int = 16
    rate: float = 4e-4
    workers: int = 2
    decay: float = 0.999
    mix: Mix = Mix()
    objective: Objective = Velocity()
    drop_skips: float = 0.0
    rank: int | None = None


def train(pictures: Pictures, inputs: Inputs, start: Network, folder: Path, settings: Settings) -> None:
    """Train until the time budget is used; the average ends in ``folder/denoiser``.

    Args:
        pictures: the training pictures.
        inputs: what the denoiser sees of them.
        start: where to start from; its weights are changed.
        folder: for checkpoints and the log; an interrupted run goes on from there.
        settings: budget, batch, learning rate, number of processes, objective, chance of dropped skips; in
            how many directions each weight matrix changes (None is all).
    """
    device, _ = device_and_dtype()
    if settings.rank is not None:
        if settings.workers > 1 and device.type == "cpu":
            raise UsageError(
                f"a change of few directions is trained by one process; workers is {settings.workers}"
            )
        in_few_directions(start, settings.rank)
    run, average = TrainingRun(folder, settings.minutes), copy.deepcopy(start)
    run.restore(start, average)
    for module in (start, average, inputs):
        module.to(device)
    clean = _cached(pictures, inputs, folder / "inputs.safetensors")
    given = pictures, clean, inputs, (start, average), (folder, settings)
    if device.type == "cuda" or settings.workers < 2:
        _work(0, *given)
    else:
        for shared in (start, average):
            shared.share_memory()
        clean.share_memory_()
        start_processes: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]  # not in its __all__
        start_processes(_work, given, nprocs=settings.workers)
    whole(average).save_pretrained(folder / "denoiser")


def _cached(pictures: Pictures, inputs: Inputs, path: Path) -> Tensor:
    """Clean inputs of all pictures; kept ones serve only while pictures and autoencoder are the same."""
    if path.is_file():
        ends = torch.tensor([0, len(pictures) - 1])
        now = inputs.encode(pictures.on_white(ends))
        kept = load_file(path)["inputs"].to(now.device)
        if len(kept) == len(pictures) and torch.allclose(kept[ends], now, atol=1e-2):
            return kept
    found = inputs.encode(pictures.on_white())
    save_file({"inputs": found.cpu()}, path)
    return found


def _work(  # noqa: PLR0917 - torch.multiprocessing.spawn calls by position
    rank: int,
    pictures: Pictures,
    clean: Tensor,
    inputs: Inputs,
    models: tuple[nn.Module, nn.Module],
    where: tuple[Path, Settings],
) -> None:
    """One training process; the first one also averages, logs and saves."""
    folder, settings = where
    device, dtype = device_and_dtype()
    if device.type == "cpu":
        torch.set_num_threads(1)
    denoiser, average = models
    denoiser.train().requires_grad_(True)
    run = TrainingRun(folder, settings.minutes)
    torch.manual_seed(1000 * rank + run.step)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    stream = items(pictures, 1000 * rank + run.step, settings.mix)
    losses: list[float] = []
    while not run.done:
        for group in optimizer.param_groups:
            group["lr"] = run.rate(settings.rate)
        batch, text = _batch(stream, settings.batch, clean, inputs)
        with _attention(device), skips_dropped(denoiser, settings.drop_skips):
            loss = settings.objective.loss(denoiser, batch, text, dtype)
            optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        run.step += 1
        run.samples += settings.batch * settings.workers
        if rank == 0:
            follow(average, denoiser, run.step, settings.decay)
            if run.step % 50 == 0:
                recent = losses[-50:]
                run.note({"loss": sum(recent) / len(recent), "samples": run.samples})
            if run.due():
                run.save(denoiser, average)
    if rank == 0:
        run.save(denoiser, average)


def _attention(device: torch.device) -> Any:
    """Attention by plain matrix products on a CPU, where they train a fifth faster than the fused kernel."""
    return nullcontext() if device.type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def _batch(stream: Iterator[Item], size: int, clean: Tensor, inputs: Inputs) -> tuple[Tensor, Text | None]:
    chosen = list(itertools.islice(stream, size))
    batch = clean[[item.index for item in chosen]].clone()
    composed = [i for i, item in enumerate(chosen) if item.picture is not None]
    if composed:
        batch[composed] = inputs.encode(
            torch.stack([p for item in chosen if (p := item.picture) is not None])
        )
    return batch, inputs.read([item.caption for item in chosen])
