"""Train the attribute classifier on real pictures; held-out combinations test it honestly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ....judges.embedded import Attributes
from ..data.compose import BACKGROUNDS
from ..data.pictures import Pictures, Record
from ..data.world import CONCEPTS, GENDERS, SKINS, STYLES, skin_name
from .training import TrainingRun, device_and_dtype

LABELS: dict[str, tuple[str, ...]] = {"style": STYLES, "concept": CONCEPTS, "gender": GENDERS, "skin": SKINS}
SHAPE = {"width": 48, "dim": 128}


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
    coarse = F.interpolate(out, scale_factor=0.5, mode="area")
    soft = F.interpolate(coarse, out.shape[-2:], mode="bilinear")  # generated pictures are a little soft
    out = out.lerp(soft, chance(0.5) * between(0, 1).view(n, 1, 1, 1))
    noise = between(0, 0.04).view(n, 1, 1, 1) * torch.randn_like(out)
    return (out * between(0.93, 1.05).view(n, 1, 1, 1) + noise) * 2 - 1


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
        start: where to start from; by default from random weights.
        seed: of the random weights and of what is drawn.
    """
    device, dtype = device_and_dtype()
    torch.manual_seed(seed)
    model = (start or Attributes(**SHAPE, labels=LABELS)).to(device)
    run = TrainingRun(folder, minutes)
    run.restore(model)
    wanted = {k: v.to(device) for k, v in targets(pictures.records).items()}
    likely = _weights(pictures.records)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    while not run.done:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = run.rate(1e-3)
        chosen = torch.multinomial(likely, 64, replacement=True)
        batch = augment(pictures.pixels[chosen].to(device))
        with torch.autocast(device.type, dtype):
            loss = loss_of(model, batch, {k: v[chosen.to(device)] for k, v in wanted.items()})
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
