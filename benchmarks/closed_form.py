"""What a closed-form edit costs, against a straightforward fp32 inverse for every layer.

Two comparisons: QuickFix as a whole on the embedded model, one concept and a hundred at once; and the
solver alone at the size of Stable Diffusion 1.4, whose 32 cross-attention matrices read 768 channels, with
random keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Row, race
from torch import Tensor

import denoscope
from denoscope.editing.methods.quickfix import TEMPLATES, quickfix
from denoscope.editing.ridge import solve

SITE = "text_encoder/layer.0/self_attn.out"
RIDGE = 0.01
SD14 = [size for size in (320, 640, 1280) for _ in range(10)] + [1280] * 2
"""Outputs of Stable Diffusion 1.4's 16 cross-attention layers, keys and values."""


def plain_quickfix(model: denoscope.Model, requests: Mapping[str, str]) -> Tensor:
    """The published equation, a text at a time; returns the new weight of the layer."""
    layer, seen = model.module(SITE), {}

    def look(_module: object, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen["in"], seen["out"] = args[0][0], out[0]

    weight, bias = layer.weight, layer.bias
    left = RIDGE * weight.clone()
    right = RIDGE * torch.eye(weight.shape[1])
    hook = layer.register_forward_hook(look)
    try:
        for old, new in requests.items():
            for template in TEMPLATES:
                source = model.encode([template.format(old)])[0]
                keys = seen["in"][source.find(old)[-1] :]
                target = model.encode([template.format(new)])[0]
                values = seen["out"][target.find(new)[-1] :] - bias
                index = torch.arange(len(keys)).clamp(max=len(values) - 1)
                left = left + values[index].T @ keys
                right = right + keys.T @ keys
    finally:
        hook.remove()
    return left @ torch.inverse(right)


def plain_solve(
    keys: Tensor, targets: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Every layer by itself in fp32, as the public code of these methods does it; returns the new weights."""
    found = {}
    for name, weight in weights.items():
        right = RIDGE * torch.eye(weight.shape[1]) + keys.T @ keys
        left = RIDGE * weight + targets[name].T @ keys
        found[name] = left @ torch.inverse(right)
    return found


def measure(rounds: int) -> list[Row]:
    """Time of edits against the straightforward way; and how far each is from the exact answer."""
    model = denoscope.load("emoji")
    world = json.loads((Path(model.pipe.config._name_or_path) / "world.json").read_text())
    names = [name for name in world["concepts"] if _fits(model, name)][:101]
    hundred = dict(zip(names[:100], names[1:], strict=True))
    with torch.no_grad():
        return [
            *_whole(model, {"firefighter": "cook"}, "one edit", rounds),
            *_whole(model, hundred, f"{len(hundred)} concepts at once", max(3, rounds // 3)),
            *_solver(1, rounds),
            *_solver(100, rounds),
        ]


def _fits(model: denoscope.Model, name: str) -> bool:
    prompt = model.encode([name])[0]
    return name in prompt.text and bool(prompt.find(name))


def _whole(model: denoscope.Model, requests: Mapping[str, str], what: str, rounds: int) -> list[Row]:
    def ours() -> denoscope.Edit:
        return quickfix(model, requests, site=SITE, templates=TEMPLATES, ridge=RIDGE, keep=())

    pair = race(ours, lambda: plain_quickfix(model, requests), rounds)
    a, b = pair.seconds
    name = next(n for n in model.weights(SITE) if n.endswith(".weight"))
    with ours().applied(model):
        edited = model.parameter(name).clone()
    apart = float((edited - plain_quickfix(model, requests)).norm() / edited.norm())
    note = f"{a * 1e3:.0f} ms against {b * 1e3:.0f} ms; weights differ by {apart:.1e}"
    return [Row(f"QuickFix, {what}", "one text at a time, fp32 inverse", pair.ratio, note=note)]


def _solver(concepts: int, rounds: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    keys = draw(concepts * len(TEMPLATES), 768)
    weights = {str(i): draw(out, 768) / 768**0.5 for i, out in enumerate(SD14)}
    targets = {name: draw(len(keys), len(weight)) for name, weight in weights.items()}

    def ours() -> dict[str, Any]:
        residuals = {n: targets[n].double() - keys.double() @ w.double().T for n, w in weights.items()}
        deltas = solve(keys, residuals, RIDGE)
        return {n: w + _dense(deltas[n]) for n, w in weights.items()}

    pair = race(ours, lambda: plain_solve(keys, targets, weights), rounds)
    a, b = pair.seconds
    exact = {n: exactly(keys, targets[n], weights[n]) for n in ("0", "10", "20")}  # one of each size
    errors = [
        median(float((found[n] - exact[n]).norm() / exact[n].norm()) for n in exact)
        for found in (ours(), plain_solve(keys, targets, weights))
    ]
    note = (
        f"{a * 1e3:.0f} ms against {b * 1e3:.0f} ms; relative error {errors[0]:.0e} against {errors[1]:.0e}"
    )
    what = f"solver, 32 layers of SD 1.4's size, {concepts} concept{'s' * (concepts > 1)}"
    return [Row(what, "fp32 inverse for each layer", pair.ratio, note=note)]


def exactly(keys: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The same equation in float64, solved by least squares of the stacked system."""
    rows = torch.cat([keys.double(), RIDGE**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)])
    wanted = torch.cat([target.double(), RIDGE**0.5 * weight.double().T])
    return torch.linalg.lstsq(rows, wanted).solution.T


def _dense(delta: Any) -> Tensor:
    dense: Tensor = (delta if isinstance(delta, Tensor) else delta.dense()).float()
    return dense
