"""What word maps cost, against the usual processor, at the attention shapes of Stable Diffusion XL.

A fifth of XL's cross-attention layers with random weights, and nothing else of the UNet: heads of 64
channels, 10 in each layer of 64 x 64 places and 20 in each of 32 x 32, that read 77 tokens of 2048 channels,
with guidance. The baseline does what the published code (DAAM) does: a processor computes the softmax of
every token for all rows, with matrix products in place of the fused kernel, keeps the maps of all tokens, and
resizes all of them at the end. Ours is what ``word_maps`` does inside a model: ``AttentionTap`` and
``heat_of``. Each run has a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from measure import Pair, Row, clock
from torch import Tensor
from torch.nn import functional as F
from tracing import peak

from denoscope.analysis.attribution.heat import heat_of
from denoscope.models.places.attention import AttentionTap

SIZE = (64, 64)
"""Of the maps, as published."""
LAYERS = [(640, 10, 64)] * 2 + [(1280, 20, 32)] * 12
"""Channels, heads and side of each layer."""
WIDTH, TOKENS = 2048, 77
WORD = [2, 3]
"""The tokens of one word."""


class Manual:
    """Attention by hand, whose probabilities of all tokens are kept."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Attend to the text; the second half of the batch reads the prompt."""
        text = encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        probs = attn.get_attention_scores(q, k)
        self.maps.append(probs[len(probs) // 2 :])
        out: Tensor = attn.to_out[0](attn.batch_to_head_dim(probs @ v))
        return out


Inputs = list[tuple[Attention, Tensor]]


def inputs() -> tuple[Inputs, Tensor]:
    """The layers, each with what the picture says there, and the text; first row of each without a prompt."""
    torch.manual_seed(0)
    layers = [Attention(c, WIDTH, heads=heads, dim_head=c // heads) for c, heads, _ in LAYERS]
    seen = [torch.randn(2, side**2, c) for c, _, side in LAYERS]
    return list(zip(layers, seen, strict=True)), torch.randn(2, TOKENS, WIDTH)


def bare(layers: Inputs, text: Tensor) -> None:
    """No maps."""
    for attention, x in layers:
        attention(x, text)


def ours(layers: Inputs, text: Tensor) -> Tensor:
    """The word's map [y, x], by the parts of ``word_maps``."""
    maps: list[Tensor] = []
    tap = AttentionTap([("probs", lambda probs: maps.append(probs[1:2][..., WORD]))], acts=lambda: True)
    for attention, x in layers:
        tap.on()
        attention(x, text)
        tap.off()
    return heat_of(maps, SIZE, SIZE)[0].mean(0)


def theirs(layers: Inputs, text: Tensor) -> Tensor:
    """The same map, the usual way."""
    maps: list[Tensor] = []  # [head, query, token]
    for attention, x in layers:
        attention.set_processor(Manual(maps))
        attention(x, text)
    sides = [round(x.shape[1] ** 0.5) for x in maps]
    grids = [x.transpose(1, 2).unflatten(-1, (n, n)) for x, n in zip(maps, sides, strict=True)]
    every = torch.cat([F.interpolate(x, SIZE, mode="bicubic").clamp(min=0) for x in grids])
    return every.mean(0)[WORD].mean(0)


WAYS = {"bare": bare, "ours": ours, "theirs": theirs}


def measure(rounds: int) -> list[Row]:
    """Time, and peak memory beyond that of the bare run; the maps are the same, which is checked."""
    runs = [{way: _child(way) for way in WAYS} for _ in range(rounds)]
    maps = [torch.tensor(runs[0][way]["map"]) for way in ("ours", "theirs")]
    if not torch.allclose(*maps, rtol=1e-4, atol=0):
        raise RuntimeError("the maps of both ways differ, so their costs cannot be compared")
    seconds = {way: [run[way]["seconds"] for run in runs] for way in WAYS}
    extra = {way: median(run[way]["peak"] - run["bare"]["peak"] for run in runs) for way in WAYS}
    pair = Pair(seconds["ours"], seconds["theirs"])
    times = (
        "{:.1f} s against {:.1f} s".format(*pair.seconds) + f"; without maps {median(seconds['bare']):.1f} s"
    )
    megabytes = (
        f"{extra['ours'] / 1e6:.0f} MB against {extra['theirs'] / 1e6:.0f} MB beyond the run without maps"
    )
    what = f"map of a word, {len(LAYERS)} cross-attentions of SDXL's size"
    against = "manual softmax, all maps kept"
    return [
        Row(f"{what}: time", against, pair.ratio, 1.0, note=f"{times}; the same maps"),
        Row(f"{what}: peak extra memory", against, extra["ours"] / extra["theirs"], 1.0, note=megabytes),
    ]


def _child(way: str) -> dict[str, Any]:
    command = [sys.executable, __file__, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def _run_once(way: str) -> None:
    """In the child: one run, what it took, and its map."""
    torch.set_num_threads(1)
    given, found = inputs(), list[Any]()
    seconds = clock(lambda: found.append(WAYS[way](*given)))
    told = [] if way == "bare" else found[0].flatten().tolist()
    print(json.dumps({"seconds": seconds, "peak": peak(), "map": told}))


if __name__ == "__main__":
    _run_once(sys.argv[1])
