"""What UCE and TIME cost at the sizes of Stable Diffusion 1.5 and XL, against an fp32 inverse for each layer.

Random weights and keys: the cost does not depend on what they hold. The baseline does what the published code
does, with its loops over concepts already written as matrix products: for every layer its own two sums and
its own inverse. Ours solves once for all layers that read the same (``editing.text_edit``), and gives the
change of each. Both errors are against float64, on one layer of each size.
"""

from __future__ import annotations

from statistics import median

import torch
from measure import Row, race
from torch import Tensor, nn

from denoscope.editing.lowrank import Delta, dense
from denoscope.editing.ridge import solve
from denoscope.editing.text_edit import of_layer
from denoscope.probes.text_layers import TOKENS, TextLayer

WIDTHS = {
    "SD 1.5": (768, [320] * 10 + [640] * 10 + [1280] * 12),
    "SDXL": (2048, [640] * 20 + [1280] * 120),
}
"""Channels of the text, and of each cross-attention's keys and values."""
TIME_ROWS = 4 * 77
"""Four wordings, every token of each."""


def measure(rounds: int) -> list[Row]:
    """Time and error of the solves of UCE (a row for each concept, λ 0.5) and TIME (λ 0.1)."""
    with torch.no_grad():
        return [
            _solve(f"{method}, {size}, {n} concept{'s' * (n > 1)}", size, rows * n, ridge, rounds)
            for size in WIDTHS
            for method, rows, ridge, counts in (
                ("UCE", 1, 0.5, (1, 100, 1000)),
                ("TIME", TIME_ROWS, 0.1, (1,)),
            )
            for n in counts
        ]


def _solve(what: str, size: str, rows: int, ridge: float, rounds: int) -> Row:
    width, outputs = WIDTHS[size]
    generator = torch.Generator().manual_seed(0)
    keys, targets = torch.randn(2, rows, width, generator=generator)
    layers = [_layer(f"{i}", out, width, generator) for i, out in enumerate(outputs)]

    def ours() -> list[Tensor]:
        k = keys.double()
        change = solve(k, {"": targets.double() - k}, ridge)[""]
        return [_changed(layer, of_layer(change, layer)) for layer in layers]

    def theirs() -> list[Tensor]:
        return [plain(layer.module.weight.detach(), keys, targets, ridge) for layer in layers]

    pair = race(ours, theirs, rounds, warm=False)
    a, b = pair.seconds
    some = [outputs.index(out) for out in sorted(set(outputs))]
    exact = [
        plain(layers[i].module.weight.detach().double(), keys.double(), targets.double(), ridge) for i in some
    ]
    errors = [
        median(float((found[i] - e).norm() / e.norm()) for i, e in zip(some, exact, strict=True))
        for found in (ours(), theirs())
    ]
    note = f"{a:.2f} s against {b:.2f} s; relative error {errors[0]:.0e} against {errors[1]:.0e}"
    return Row(f"{what}: {len(layers)} layers", "fp32 inverse for each layer", pair.ratio, note=note)


def _layer(name: str, outputs: int, width: int, generator: torch.Generator) -> TextLayer:
    module = nn.Linear(width, outputs, bias=False)
    module.weight = nn.Parameter(torch.randn(outputs, width, generator=generator) / width**0.5)
    return TextLayer(f"unet.{name}.weight", module, TOKENS, width)


def _changed(layer: TextLayer, delta: Delta) -> Tensor:
    return layer.module.weight.detach() + dense(delta).float()


def plain(weight: Tensor, keys: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """The published closed form for one layer, in the number format of its weight."""
    left = ridge * weight + weight @ targets.T @ keys
    right = ridge * torch.eye(weight.shape[1], dtype=weight.dtype) + keys.T @ keys
    return left @ torch.inverse(right)
