"""What it costs to watch: tracing 16 sites over 20 steps, against the bare diffusers pipeline.

Memory is the peak resident size of a fresh process that traces, less that of a fresh process that runs the
bare pipeline, divided by the bytes the trace holds at its end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Row, peak, race

import denoscope

PROMPTS = [
    "a noto emoji of a woman firefighter",
    "a twemoji emoji of a dog",
    "a flat emoji of a red heart",
    "a glossy emoji of a man cook with dark skin",
]
STEPS = 20
KINDS = ("self_attn.out", "cross_attn.out", "mlp.out", "resid.post")


def sites_of(model: denoscope.Model) -> list[denoscope.Site]:
    """Sixteen sites, four of each kind, over the whole depth of the network."""
    found = [model.sites(f"unet/*.attn.*.*/{kind}") for kind in KINDS]
    return [sites[i * (len(sites) - 1) // 3] for sites in found for i in range(4)]


def bare(model: denoscope.Model, prompts: Sequence[str]) -> torch.Tensor:
    """The pipeline alone, as its users call it; no picture is decoded on either side."""
    latents: torch.Tensor = model.pipe(
        list(prompts),
        num_inference_steps=STEPS,
        guidance_scale=model.default_guidance,
        generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
        output_type="latent",
    ).images
    return latents


def traced(model: denoscope.Model, prompts: Sequence[str]) -> denoscope.Trace:
    """The same run, keeping sixteen sites."""
    return denoscope.trace(
        model,
        prompts,
        seeds=range(len(prompts)),
        steps=STEPS,
        sites=sites_of(model),
        guidance=model.default_guidance,
    )


def kept_bytes(trace: denoscope.Trace) -> int:
    """Bytes of the activations a trace holds."""
    return sum(trace[s].nbytes for s in trace)


def measure_time(rounds: int) -> list[Row]:
    """Time of a trace over that of the bare pipeline; both give the same latents, which is checked."""
    model = denoscope.load("emoji")
    model.pipe.set_progress_bar_config(disable=True)
    if not torch.equal(traced(model, PROMPTS).latents, bare(model, PROMPTS)):
        raise RuntimeError("the traced run and the pipeline's differ, so their times cannot be compared")
    pair = race(lambda: traced(model, PROMPTS), lambda: bare(model, PROMPTS), rounds)
    ours, theirs = pair.seconds
    note = f"{ours:.2f} s against {theirs:.2f} s for {len(PROMPTS)} pictures; latents equal to the bit"
    return [Row("trace 16 sites x 20 steps: time", "StableDiffusionPipeline", pair.ratio, 1.05, note=note)]


def measure_memory(rounds: int) -> list[Row]:
    """Peak extra memory over the bytes kept."""
    extra, kept = [], 0
    for _ in range(rounds):
        with_trace, without = _child("traced"), _child("bare")
        kept = with_trace["kept"]
        extra.append((with_trace["peak"] - without["peak"]) / kept)
    note = f"peak resident size of two fresh processes; {kept / 1e6:.0f} MB kept"
    return [Row("trace 16 sites x 20 steps: peak extra memory", "bytes kept", median(extra), 1.2, note=note)]


def _child(mode: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, mode],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run_once(mode: str) -> None:
    """In the child: one run, and what it took."""
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    model.pipe.set_progress_bar_config(disable=True)
    prompts = PROMPTS * 4  # enough to stand out from the process's own memory
    kept = kept_bytes(traced(model, prompts)) if mode == "traced" else bare(model, prompts).nbytes
    print(json.dumps({"peak": peak(), "kept": kept}))


if __name__ == "__main__":
    _run_once(sys.argv[1])
