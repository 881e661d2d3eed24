"""Train the attribute classifier on real pictures; held-out combinations test it honestly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ...judges import Attributes
from .compose import BACKGROUNDS
from .data import Pictures, Record
from .training import Run, device_and_dtype
from .world import CONCEPTS, GENDERS, SKINS, STYLES, skin_name

LABELS: dict[str, tuple[str, ...]] = {"style": STYLES, "concept": CONCEPTS, "gender": GENDERS, "skin": SKINS}
SHAPE = {"width": 48, "dim": 128}


def targets(records: Sequence[Record]) -> dict[str, Tensor]:
    """Label numbers of each attribute, -1 where an attribute says nothing."""
    rows = [(r.style, r.concept, r.gender, skin_name(r) or "") for r in records]
    return {
        name: torch.tensor([labels.index(row[i]) if row[i] in labels else -1 for row in rows])
        for i, (name, labels) in enumerate(LABELS.items())
    }


def augment(pixels: Tensor, rng: random.Random) -> Tensor:
    """Shift, zoom, mirror, tint the ground, soften, add noise; ``[n, 4, 64, 64]`` to -1..1 on some ground."""
    pixels = pixels.float() / 255
    if rng.random() < 0.25:
        pixels = pixels.flip(-1)
    angle, zoom = rng.uniform(-0.12, 0.12), rng.uniform(0.92, 1.12)
    shift = rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)
    turn = torch.tensor([[zoom, angle, shift[0]], [-angle, zoom, shift[1]]]).expand(len(pixels), 2, 3)
    grid = F.affine_grid(turn, list(pixels.shape), align_corners=False).to(pixels.device)
    alpha = pixels[:, 3:]
    layers = F.grid_sample(torch.cat([pixels[:, :3] * alpha, alpha], 1), grid, align_corners=False)
    tint = rng.choice(tuple(BACKGROUNDS.values())) if rng.random() < 0.15 else (255, 255, 255)
    ground = torch.tensor(tint, device=pixels.device).view(1, 3, 1, 1) / 255
    out = layers[:, :3] + (1 - layers[:, 3:]) * ground
    if rng.random() < 0.4:  # generated pictures are a little soft
        side = rng.choice((28, 36, 48))
        out = F.interpolate(F.interpolate(out, (side, side), mode="area"), out.shape[-2:], mode="bilinear")
    out = out * rng.uniform(0.93, 1.05) + rng.uniform(0, 0.04) * torch.randn_like(out)
    return out * 2 - 1


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
    pictures: Pictures, test: Pictures, folder: Path, minutes: float, *, start: Attributes | None = None
) -> Attributes:
    """Train until the time budget is used; an interrupted run goes on from its checkpoint.

    Args:
        pictures: to learn from.
        test: unseen combinations, for the log.
        folder: for checkpoints and the log.
        minutes: time budget.
        start: where to start from; by default from random weights.
    """
    device, dtype = device_and_dtype()
    torch.manual_seed(0)
    model = (start or Attributes(**SHAPE, labels=LABELS)).to(device)
    run, rng = Run(folder, minutes), random.Random(0)
    run.restore(model)
    wanted = {k: v.to(device) for k, v in targets(pictures.records).items()}
    likely = _weights(pictures.records)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    while not run.done:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = run.rate(1e-3)
        chosen = torch.multinomial(likely, 64, replacement=True)
        batch = augment(pictures.pixels[chosen].to(device), rng)
        with torch.autocast(device.type, dtype):
            loss = loss_of(model, batch, {k: v[chosen.to(device)] for k, v in wanted.items()})
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
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
