"""One denoising step at real size, watched and not: ``python benchmarks/full_size.py sd-1.5``.

The configuration is the published one, the weights are random (time and memory do not depend on their
values), in bfloat16, or in float32 on a CPU that cannot multiply it. Bare and traced runs alternate, each in
a process of its own, so that peak memory is its own. All outputs of cross- or joint attention are traced.
With a GPU: ``--device cuda``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings

import measure
import torch

import denoscope
from denoscope.models.opening.placing import has_bfloat16
from denoscope.models.synthetic.published import PUBLISHED

KINDS = ("cross_attn.out", "joint_attn.out")


def opened(name: str, device: str) -> denoscope.Model:
    """Open a model of a published configuration, with random weights, on a device."""
    torch.manual_seed(0)
    dtype = format_on(device)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            pipe = PUBLISHED[name]()
    finally:
        torch.set_default_dtype(torch.float32)
    return denoscope.load(pipe.to(device, dtype))


def run(name: str, device: str, traced: bool) -> dict[str, float]:
    """Open a random model, make one guided step, and say what it took."""
    warnings.simplefilter("ignore")
    model = opened(name, device)
    part = model.input_site.component
    sites = [s for s in model.sites(f"{part}/**") if s.kind in KINDS] if traced else []
    with torch.no_grad():
        told = model.encode(["a cat"])
        before = peak(device)
        begin = time.perf_counter()
        trace = denoscope.trace(model, told, seeds=[0], steps=1, sites=sites)
        finite = bool(trace.latents.isfinite().all())  # also waits for the GPU
        seconds = time.perf_counter() - begin
    if not finite:
        raise RuntimeError(f"{name} did not survive random weights")
    kept = sum(trace[s].numel() * trace[s].element_size() for s in sites)
    said = {"kept": kept, "sites": len(sites), "bytes": dtype.itemsize}
    return {"seconds": seconds, "peak": peak(device), "before": before, **said}


def format_on(device: str) -> torch.dtype:
    """The format in which a device multiplies fast."""
    return torch.float32 if device == "cpu" and not has_bfloat16() else torch.bfloat16


def peak(device: str) -> float:
    """Most bytes that this process has held so far."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated())
    return measure.peak()


def child(name: str, device: str, traced: bool) -> dict[str, float]:
    """Run in a fresh process."""
    command = [sys.executable, __file__, name, "--device", device, "--child", str(int(traced))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Race bare against traced, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(PUBLISHED))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child is not None:
        print(json.dumps(run(told.name, told.device, told.child == "1")))
        return
    rows = [
        (child(told.name, told.device, False), child(told.name, told.device, True))
        for _ in range(told.rounds)
    ]
    middle = {
        which: {k: statistics.median(row[i][k] for row in rows) for k in rows[0][i]}
        for i, which in enumerate(("bare", "traced"))
    }
    bare, traced = middle["bare"], middle["traced"]
    dtype = str(format_on(told.device)).removeprefix("torch.")
    print(f"{told.name} on {told.device}, {dtype}, one step with guidance, {traced['sites']:.0f} sites kept")
    for which, found in middle.items():
        print(f"{which}: {found['seconds']:.2f} s, peak {found['peak'] / 1e9:.2f} GB")
    print(
        f"time {traced['seconds'] / bare['seconds']:.2f}x, peak memory {traced['peak'] / bare['peak']:.3f}x"
    )
    print(f"kept {traced['kept'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
