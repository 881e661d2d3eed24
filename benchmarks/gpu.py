"""Models of published size on one GPU: what watching, causal maps and sweeps cost there.

    python benchmarks/gpu.py                         five sizes, about 12 minutes of an H200-class GPU
    python benchmarks/gpu.py --sizes sdxl flux-dev   some of them
    python benchmarks/gpu.py --limit 300             so many seconds a size, instead of 140, about
    python benchmarks/gpu.py --tiny                  the same code on tiny models, on whatever there is

Weights are random, as time and memory do not depend on their values; nothing is downloaded. A part of a size
is kept in --output as soon as it is measured, so what was stopped, failed or was left out for time goes on; a
size that does not fit the memory says so. The tables go into docs/gpu.md, but not those of tiny models.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import crossings
import full_size
import gpu_compiling
import gpu_tables
import gpu_timing
import pages
import torch
from families import MAKERS

import denoscope
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.provenance import machine

PAGE = "docs/gpu.md"
CHECKOUT = Path(__file__).resolve().parent.parent
SIZES = {
    "sd-1.5": "Stable Diffusion",
    "sdxl": "Stable Diffusion XL",
    "pixart-sigma": "PixArt-Sigma",
    "sd3-medium": "Stable Diffusion 3",
    "flux-dev": "FLUX.1 dev",
}
"""And the tiny models of the same families."""
LIMIT = 140.0
Measure = Callable[[denoscope.Model, float], dict[str, Any]]
PARTS: Mapping[str, tuple[Measure, float]] = {
    "tracing": (gpu_timing.tracing, 0.15),
    "map": (gpu_timing.causal_map, 0.25),
    "published": (gpu_timing.published, 0.1),
    "sweep": (gpu_timing.sweeping, 0.2),
    "crossings": (crossings.copying, 0.05),
    "compiling": (gpu_compiling.compiling, 0.15),
}
"""What is measured, and its share of the seconds of a size; the rest is for opening the model."""
TINY: Mapping[Any, Mapping[str, Any]] = {
    gpu_timing: {"STEPS": 3, "ROUNDS": 1, "MOST": 4},
    gpu_compiling: {"COMPILER": {"backend": "eager"}, "SITES": 2},
}
NO_MEMORY, NO_TIME = "does not fit the memory", "no time was left"


def about(tiny: bool) -> dict[str, Any]:
    """What computes; results of another machine are not gone on with."""
    there = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if there else "CPU"
    memory = torch.cuda.get_device_properties(0).total_memory if there else 0
    return {"device": name, "memory": memory, "steps": gpu_timing.STEPS, "tiny": tiny, **machine()}


def opened(size: str, tiny: bool) -> denoscope.Model:
    """A model of that size, on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not tiny:
        return full_size.opened(size, device)
    return denoscope.load(MAKERS[SIZES[size]]().to(device))


def kept(path: Path, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What is there of a size, measured on the same machine."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if found.get("about") == machine else {"about": dict(machine), "parts": {}}


def measured(size: str, path: Path, limit: float, tiny: bool) -> dict[str, Any]:
    """All parts of a size, of which those that are missing are measured now."""
    found = kept(path, about(tiny))
    missing = [part for part in PARTS if "failed" in found["parts"].get(part, {"failed": ""})]
    if not missing:
        return found
    begun = time.perf_counter()
    try:
        model = opened(size, tiny)
    except torch.OutOfMemoryError:
        model = None
    for part in missing:
        left = limit - (time.perf_counter() - begun)
        found["parts"][part] = _tried(part, model, limit, left)
        write_bytes(path, json.dumps(found, indent=1).encode())
        said = found["parts"][part].get("failed", "done")
        print(f"{size}, {part}: {said} ({time.perf_counter() - begun:.0f} s)", flush=True)
    del model
    gpu_timing.freed()
    return found


def _tried(part: str, model: denoscope.Model | None, limit: float, left: float) -> dict[str, Any]:
    """One part, or why there is none."""
    measure, share = PARTS[part]
    if model is None:
        return {"failed": NO_MEMORY}
    if left <= 0:
        return {"failed": NO_TIME}
    try:
        return measure(model, min(left, share * limit))
    except torch.OutOfMemoryError:
        found = {"failed": NO_MEMORY}
    except Exception as error:  # noqa: BLE001  # the other parts are still wanted, and this one is told
        found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    gpu_timing.freed()  # when the error, which holds what it was made of, is gone
    return found


def show(folder: Path, tiny: bool) -> str:
    """The tables of all sizes that there are, put into the page; tiny models' not into the checkout's."""
    paths = {size: folder / f"{size}.json" for size in SIZES}
    found = {size: kept(path, about(tiny)) for size, path in paths.items() if path.is_file()}
    text = gpu_tables.text({size: one for size, one in found.items() if one["parts"]})
    if not tiny or pages.ROOT.resolve() != CHECKOUT:
        pages.write(PAGE, "gpu", text)
    return text


def main() -> None:
    """Measure the sizes that are asked for and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a size, about")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on whatever there is")
    parser.add_argument("--output", type=Path, default=pages.ROOT / "build" / "findings")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        print("there is no GPU here, so nothing is measured; --tiny goes through the same code on a CPU")
        return
    warnings.simplefilter("ignore")
    for module, smaller in TINY.items() if options.tiny else ():
        vars(module).update(smaller)
    folder = options.output / ("gpu-tiny" if options.tiny else "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    failed = _run(options.sizes, folder, options.limit, options.tiny)
    print(show(folder, options.tiny))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same call tries them again")


def _run(sizes: Sequence[str], folder: Path, limit: float, tiny: bool) -> list[str]:
    """Measure sizes; return what failed otherwise than for memory or time."""
    failed = []
    for size in sizes:
        parts = measured(size, folder / f"{size}.json", limit, tiny)["parts"]
        said = {part: one.get("failed", "") for part, one in parts.items()}
        failed += [f"{size} {part}" for part, why in said.items() if why not in ("", NO_MEMORY, NO_TIME)]
        show(folder, tiny)  # now, lest it be lost with what comes after
    return failed


if __name__ == "__main__":
    main()
