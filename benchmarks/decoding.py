"""Sparse against dense decoding of a dictionary of the published size: time, rows a second, peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Row, peak, race
from torch import Tensor
from torch.nn.functional import normalize

from denoscope.probes.dictionary.codes import Codes

CHANNELS, FEATURES, K = 1280, 5120, 10
"""Of the released dictionaries of SDXL-Turbo (Surkov et al. 2024)."""
ROWS = 4096


def made(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A decoder, pre-activations that were selected (values, features), and what is to come out."""
    g = torch.Generator().manual_seed(0)
    decoder = normalize(torch.randn(FEATURES, CHANNELS, generator=g), dim=-1).requires_grad_()
    values = torch.rand(rows, K, generator=g).requires_grad_()
    features = torch.rand(rows, FEATURES // 8, generator=g).topk(K).indices * 8
    return decoder, values, features, torch.randn(rows, CHANNELS, generator=g)


def decoded(how: str, decoder: Tensor, values: Tensor, features: Tensor) -> Tensor:
    """What the codes stand for: reading k rows of the decoder, or all of them."""
    if how == "dense":
        return torch.zeros(len(values), FEATURES).scatter(-1, features, values) @ decoder
    starts = torch.arange(0, values.numel(), K)
    codes = Codes(values.reshape(-1), features.reshape(-1), starts, (len(values),), FEATURES)
    return codes.times(decoder)


def step(how: str, decoder: Tensor, values: Tensor, features: Tensor, target: Tensor) -> list[Tensor]:
    """Decode, and the gradients that training needs."""
    loss = (decoded(how, decoder, values, features) - target).square().sum()
    return list(torch.autograd.grad(loss, (decoder, values)))


def measure(rounds: int) -> list[Row]:
    """Time of decoding with gradients, rows a second, and peak memory of fresh processes."""
    given = made(ROWS)
    far = max(
        float((a - b).norm() / b.norm())
        for a, b in zip(step("sparse", *given), step("dense", *given), strict=True)
    )
    pair = race(lambda: step("sparse", *given), lambda: step("dense", *given), rounds)
    ours, theirs = (ROWS / s for s in pair.seconds)
    what = f"dictionary {CHANNELS} x {FEATURES}, k {K}"
    note = f"{ours:,.0f} against {theirs:,.0f} rows a second; gradients differ by {far:.0e}"
    peaks = [{how: _child(how)["peak"] for how in ("sparse", "dense", "none")} for _ in range(3)]
    extra = [[p[how] - p["none"] for how in ("sparse", "dense")] for p in peaks]
    mega = [median(e[i] for e in extra) / 1e6 for i in (0, 1)]
    return [
        Row(f"{what}: decoding with gradients", "dense latents", pair.ratio, 0.5, note=note),
        Row(f"{what}: peak extra memory", "dense latents", median(a / b for a, b in extra), 0.5,
            note=f"{mega[0]:.0f} MB against {mega[1]:.0f} MB for {ROWS} rows; fresh processes"),
    ]  # fmt: skip


def _child(how: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, how], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _once(how: str) -> None:
    """In the child: one step, and the most memory it took."""
    torch.set_num_threads(1)
    given = made(ROWS)
    if how != "none":
        step(how, *given)
    print(json.dumps({"peak": peak()}))


if __name__ == "__main__":
    _once(sys.argv[1])
