"""What crosses between main memory and the device that computes, counted by torch's own dispatch.

Each crossing is said with who asked for it: the module nearest to it of denoscope, diffusers or transformers.
A table of Python numbers put on a GPU (``torch.tensor(values, device=...)``) is seen when it is there.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from families import watched
from gpu_timing import OTHER, PROMPT, WORD, Found, crossing, traced
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import denoscope
from denoscope.analysis import Swap, metrics, trace_denoiser

LENGTHS = (2, 3)  # steps of the runs that are compared
ATEN = torch.ops.aten
OURS = ("denoscope", "diffusers", "transformers")
Asked = tuple[str, str, str]
READ, OUT, IN = "number read", "to main memory", "to the device"
"""One number; a tensor that leaves the device; a tensor that comes to it."""
WAITS: Asked = ("waits", "torch", "")


class Crossings(TorchDispatchMode):
    """Counts while it is on: ``counts[kind, package, module]``."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Asked] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let everything happen, and count what crosses."""
        made = func(*args, **(kwargs or {}))
        kind = _kind(func, args, made)
        if kind:
            self.counts[kind, *_asked()] += 1
        return made

    def of(self, package: str = "", kind: str = "") -> int:
        """How many there were, of one package or kind where it is said."""
        return sum(n for (k, p, _), n in self.counts.items() if package in ("", p) and kind in ("", k))


def _kind(func: Any, args: Any, made: Any) -> str:
    """What kind of crossing a call was; empty if none."""
    if func is ATEN._local_scalar_dense.default:
        return READ if _there(args[0]) else ""
    if func in (ATEN._to_copy.default, ATEN.copy_.default):
        source, target = (args[0], made) if func is ATEN._to_copy.default else (args[1], args[0])
        return "" if _there(source) == _there(target) else IN if _there(target) else OUT
    if func is ATEN.lift_fresh.default:  # what torch.tensor made of Python's numbers
        return IN if _there(made) else ""
    if func in (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default):
        near = any(isinstance(i, Tensor) and not _there(i) for i in tree_leaves(args[1]))
        return IN if near and _there(args[0]) else ""
    return ""


def _there(x: Tensor) -> bool:
    return x.device.type != "cpu"


def _asked() -> tuple[str, str]:
    """The package and module that are nearest in the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.split(".")[0] in OURS:
            return name.split(".")[0], name
        frame = frame.f_back  # type: ignore[assignment]
    return "others", ""


def per_step(run: Callable[[int], Any], few: int, many: int) -> tuple[dict[Asked, float], dict[Asked, float]]:
    """Count two lengths of a run; return what each step more costs, and what is there whatever the length.

    Both are made once before they are counted: weights are hashed, and tables are sent there, once.
    """
    run(few), run(many)
    found = [counted(run, n) for n in (few, many)]
    more = {key: (found[1][key] - found[0][key]) / (many - few) for key in found[0] | found[1]}
    always = {key: found[0][key] - few * n for key, n in more.items()}
    return {key: n for key, n in more.items() if n}, always


def counted(run: Callable[[int], Any], steps: int) -> Counter[Asked]:
    """All crossings of a run; on a GPU also how often torch says that it waits for it."""
    on_gpu = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as told, Crossings() as seen:
        warnings.simplefilter("always")
        if on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            run(steps)
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchronizing" in str(one.message) for one in told)
    return seen.counts + Counter({WAITS: waits})


def copying(model: denoscope.Model, seconds: float) -> Found:  # noqa: ARG001  # a few short runs
    """What crosses at each step of a trace, and of a causal map whose clean run is kept or in lock-step."""
    sites, some = watched(model), crossing(model)[:2]
    call: Found = {"seeds": [0], "metric": metrics.latent_distance(), "corruption": Swap(OTHER)}

    def mapped(steps: int, **more: int) -> Any:
        return trace_denoiser(model, [PROMPT], WORD, sites=some, steps=steps, **call, **more)

    runs: dict[str, tuple[Callable[[int], Any], int]] = {
        "trace of 16 sites": (lambda n: traced(model, sites, n), len(sites)),
        # each site's activation is kept, and put back in one run
        "map of 2 sites, clean run kept": (mapped, 2 * len(some)),
        "map of 2 sites, in lock-step": (lambda n: mapped(n, memory=0), 0),
    }
    return {name: _crossed(run, expected) for name, (run, expected) in runs.items()}


def _crossed(run: Callable[[int], Any], expected: int) -> Found:
    each, always = per_step(run, *LENGTHS)
    waits = each.pop(WAITS, 0)
    always.pop(WAITS, 0)
    ours = sum(n for (_, package, _), n in each.items() if package == "denoscope")
    others = sum(each.values()) - ours
    told = {"expected": expected, "ours": ours, "others": others, "waits": waits}
    return {**told, "always": sum(always.values())}
