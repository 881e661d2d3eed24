"""Train the attribute classifier on real pictures and composed scenes; held-out ones test it honestly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ....errors import UsageError
from ....judges.embedded import Attributes, read_judge
from ..data.compose import BACKGROUNDS, place, random_scene
from ..data.pictures import Pictures, Record
from ..data.world import CONCEPTS, GENDERS, SKINS, STYLES, skin_name
from .training import TrainingRun, autocast, device_and_dtype

LABELS: dict[str, tuple[str, ...]] = {"style": STYLES, "concept": CONCEPTS, "gender": GENDERS, "skin": SKINS}
SHAPE = {"width": 48, "dim": 128}
COMPOSED = 0.4
"""Share of the samples that are places of composed scenes: alone on a ground, or small beside others."""


def targets(records: Sequence[Record]) -> dict[str, Tensor]:
    """Label numbers of each attribute, -1 where an attribute says nothing."""
    rows = [(r.style, r.concept, r.gender, skin_name(r) or "") for r in records]
    return {
        name: torch.tensor([labels.index(row[i]) if row[i] in labels else -1 for row in rows])
        for i, (name, labels) in enumerate(LABELS.items())
    }


def augment(pixels: Tensor) -> Tensor:
    """Change every picture in its own way: mirror, turn, zoom, shift, ground, softness, brightness, noise.

    Args:
        pixels: ``[n, 4, 64, 64]`` as uint8 with opacity in the last channel.

    Returns:
        ``[n, 3, 64, 64]`` in -1..1.
    """
    n, device = len(pixels), pixels.device

    def between(low: float, high: float) -> Tensor:
        return torch.empty(n, device=device).uniform_(low, high)

    def chance(share: float) -> Tensor:
        return (torch.rand(n, device=device) < share).view(n, 1, 1, 1)

    mirror = 1 - 2 * chance(0.4).flatten().float()
    angle, zoom = between(-0.12, 0.12), between(0.92, 1.12)
    turn = torch.stack(
        [mirror * zoom, angle, between(-0.1, 0.1), -mirror * angle, zoom, between(-0.1, 0.1)], dim=1
    ).view(n, 2, 3)
    pixels = pixels.float() / 255
    alpha = pixels[:, 3:]
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False)
    layers = F.grid_sample(torch.cat([pixels[:, :3] * alpha, alpha], 1), grid, align_corners=False)
    tints = torch.tensor(tuple(BACKGROUNDS.values()), device=device) / 255
    tint = tints[torch.randint(len(tints), (n,), device=device)].view(n, 3, 1, 1)
    out = layers[:, :3] + (1 - layers[:, 3:]) * torch.where(chance(0.15), tint, torch.ones_like(tint))
    return worn(out)


def worn(pictures: Tensor) -> Tensor:
    """Pictures ``[n, 3, 64, 64]`` in 0..1 as if generated, in -1..1: each soft and noisy in its own way."""

    def between(low: float, high: float) -> Tensor:
        return torch.empty(len(pictures), 1, 1, 1, device=pictures.device).uniform_(low, high)

    coarse = F.interpolate(pictures, scale_factor=0.5, mode="area")
    soft = F.interpolate(coarse, pictures.shape[-2:], mode="bilinear")
    out = pictures.lerp(soft, (between(0, 1) < 0.5) * between(0, 1))
    return (out * between(0.93, 1.05) + between(0, 0.04) * torch.randn_like(out)) * 2 - 1


class Samples:
    """Endless batches of pictures and their labels: single pictures, and places of composed scenes.

    Args:
        pictures: to draw from.
        composed: share of places.
        seed: of the scenes.
    """

    def __init__(self, pictures: Pictures, composed: float = COMPOSED, seed: int = 0) -> None:
        self.pictures, self.composed = pictures, composed
        self.likely, self.rng = _weights(pictures.records), random.Random(seed)
        self.styles: dict[str, list[int]] = {}
        for i, record in enumerate(pictures.records):
            self.styles.setdefault(record.style, []).append(i)

    def draw(self, size: int, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures ``[size, 3, 64, 64]`` in -1..1, and their ``targets``."""
        chosen = torch.multinomial(self.likely, size, replacement=True).tolist()
        plain, first = chosen[(n := round(size * self.composed)) :], chosen[:n]
        shown = [augment(self.pictures.pixels[plain].to(device))]
        records = [self.pictures.records[i] for i in plain]
        if first:
            parts, seen = zip(*(self._place(i) for i in first), strict=True)
            shown.append(worn(torch.stack(parts).to(device)))
            records += seen
        return torch.cat(shown), {k: v.to(device) for k, v in targets(records).items()}

    def _place(self, first: int) -> tuple[Tensor, Record]:
        second = self.rng.choice(self.styles[self.pictures.records[first].style])
        scene = random_scene(self.pictures, first, second, self.rng)
        one = self.rng.randrange(len(scene.boxes))
        return place(scene.picture, scene.boxes[one]), scene.records[one]


def loss_of(model: Attributes, pictures: Tensor, wanted: dict[str, Tensor]) -> Tensor:
    """Sum of the cross-entropies of all attributes."""
    total = torch.zeros((), device=pictures.device)
    for name, logits in model(pictures).items():
        known = wanted[name] >= 0
        if known.any():
            total = total + F.cross_entropy(logits[known].float(), wanted[name][known], label_smoothing=0.05)
    return total


@torch.no_grad()
def accuracy(model: Attributes, pictures: Pictures) -> dict[str, float]:
    """Share of right answers for each attribute, where it applies; people only for gender."""
    wanted = targets(pictures.records)
    device = next(model.parameters()).device
    parts = [model(p.to(device) * 2 - 1) for p in pictures.on_white().split(256)]
    found = {}
    for name in LABELS:
        answers = torch.cat([part[name] for part in parts]).argmax(1).cpu()
        known = wanted[name] >= 0
        found[name] = (answers == wanted[name])[known].float().mean().item()
    return found


def shipped(folder: Path) -> Attributes:
    """The classifier of an assembled model, to train on.

    Raises:
        ValueError: when it knows other labels than those of the world.
    """
    judge = read_judge(folder)
    if judge.vocabulary != LABELS:
        raise UsageError(f"the judge of {folder} knows other labels than the world has; leave out --base")
    return judge.classifier.requires_grad_(True)


def train(
    pictures: Pictures,
    test: Pictures,
    folder: Path,
    minutes: float,
    *,
    start: Attributes | None = None,
    seed: int = 0,
) -> Attributes:
    """Train until the time budget is used; an interrupted run goes on from its checkpoint.

    Args:
        pictures: to learn from.
        test: unseen combinations, for the log.
        folder: for checkpoints and the log.
        minutes: time budget.
        start: where to start from, at a lower rate; by default from random weights.
        seed: of the random weights and of what is drawn.
    """
    device, dtype = device_and_dtype()
    torch.manual_seed(seed)
    model = (start or Attributes(**SHAPE, labels=LABELS)).to(device)
    run = TrainingRun(folder, minutes)
    run.restore(model)
    samples, peak = Samples(pictures, seed=seed + run.step), 6e-4 if start else 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), peak, weight_decay=0.05)
    while not run.done:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = run.rate(peak)
        batch, wanted = samples.draw(64, device)
        with autocast(device, dtype):
            loss = loss_of(model, batch, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        run.step += 1
        if run.step % 200 == 0:
            run.note({"loss": loss, **accuracy(model.eval(), test)})
            run.save(model)
    run.save(model)
    return model.eval()


def _weights(records: Sequence[Record]) -> Tensor:
    """Half of the samples evenly over concepts, half evenly over pictures (people have many)."""
    counts = {c: 0 for c in CONCEPTS}
    for record in records:
        counts[record.concept] += 1
    even = torch.tensor([1 / counts[r.concept] for r in records])
    return even / even.sum() + 1 / len(records)
