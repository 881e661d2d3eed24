"""How fast the denoiser goes: given, of a GPU by its maker's peak, measured before, or measured now."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from ..analysis.plans import StudyPlan
    from ..models.base import Model
    from ..models.run.cost import RowCost

GPUS = {
    "t4": (65, "NVIDIA T4 data sheet, FP16"),
    "rtx-4090": (165.2, "NVIDIA Ada architecture white paper, FP16 with FP32 accumulate"),
    "a100": (312, "NVIDIA A100 data sheet, BF16"),
    "h100": (989, "NVIDIA H100 data sheet, SXM, half of what it says with sparsity"),
    "h200": (989, "NVIDIA H200 data sheet, SXM, half of what it says with sparsity"),
}
"""Dense products in half precision, 10^12 operations a second at most, and who says so."""
SAMPLES = 16


@dataclass(frozen=True)
class Pace:
    """How fast the denoiser goes.

    Args:
        rows: a second; None if nobody knows.
        whence: who says so.
        at_best: whether it is never reached.
        single: rows a second where they come one at a time; None where it was not measured.
        picture: seconds to decode one; 0 where it was not measured.
    """

    rows: float | None
    whence: str
    at_best: bool = False
    single: float | None = None
    picture: float = 0.0

    @property
    def told(self) -> str:
        """For a reader."""
        if self.rows is None:
            return self.whence
        return f"{'at most ' * self.at_best}{self.rows:.3g} ({self.whence})"


def kept_in() -> Path:
    """Return the file where the pace of this machine is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "denoscope" / "pace.json"


def check(given: float | None, gpu: str | None) -> None:
    """Raise LookupError for a GPU that is not in the table, and ValueError for a pace that is none."""
    if gpu is not None and gpu not in GPUS:
        raise NotFoundError(f"no peak of {gpu!r} is known; there are {', '.join(GPUS)}, or give --pace")
    if given is not None and (gpu is not None or not 0 < given < math.inf):
        raise UsageError(f"--pace is {given}; give rows a second, above 0, and no --gpu beside it")


def pace_of(  # noqa: PLR0917  # all that says it
    plan: StudyPlan, model: Model, cost: RowCost, prompt: str, given: float | None, gpu: str | None
) -> Pace:
    """Return how fast a plan's rows go."""
    if given is not None:
        return Pace(given, "as given")
    if gpu is not None:
        peak, source = GPUS[gpu]
        return Pace(1e12 * peak / cost.flops, f"{gpu}'s peak of {peak:g} TFLOP/s: {source}", at_best=True)
    kept = _kept()
    if (own := kept.get(_key(model))) is not None:
        said = f"measured here before, in {kept_in()}"
        single, picture = own.get("single_rows_per_second"), own.get("seconds_per_picture", 0.0)
        return Pace(own["rows_per_second"], said, single=single, picture=picture)
    if model.device.type == "meta":
        if not kept:
            return Pace(None, "not known; --gpu or --pace says it, or  denoscope plan --calibrate  first")
        best = max(kept.values(), key=lambda one: float(one["flops_per_second"]))
        rows = best["flops_per_second"] / cost.flops
        return Pace(rows, f"a guess: at {best['flops_per_second'] / 1e9:.3g} GFLOP/s as {best['model']} here")
    return measured(plan, model, prompt)


def measured(plan: StudyPlan, model: Model, prompt: str) -> Pace:
    """Measure now what a plan needs."""
    from ..analysis.mediation.planning import rows_per_second, seconds_per_picture

    rows = rows_per_second(model, samples=plan.samples, prompt=prompt)
    single = rows_per_second(model, samples=1, guidance=1.0, prompt=prompt) if plan.single else None
    batch = min(plan.samples, plan.pictures)
    picture = seconds_per_picture(model, samples=batch) if batch else 0.0
    return Pace(rows, "measured here", single=single, picture=picture)


def calibrate(model: Model) -> dict[str, Any]:
    """Measure how fast an opened model goes on this machine, and keep it.

    Raises:
        OSError: if it cannot be kept.
    """
    from ..analysis.mediation.planning import rows_per_second, seconds_per_picture
    from ..models.run.cost import row_cost
    from ..models.store.disk import write_bytes

    rows, cost = rows_per_second(model, samples=SAMPLES), row_cost(model)
    found = {
        "model": model.name,
        "rows_per_second": rows,
        "flops_per_second": rows * cost.flops,
        "single_rows_per_second": rows_per_second(model, samples=1, guidance=1.0),
        "seconds_per_picture": seconds_per_picture(model, samples=SAMPLES),
        "samples": SAMPLES,
        "processor": platform.processor() or platform.machine(),
    }
    path = kept_in()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps({**_kept(), _key(model): found}, indent=1).encode())
    return {**found, "kept": str(path)}


def _kept() -> dict[str, Any]:
    try:
        found = json.loads(kept_in().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or no JSON: it is measured anew
        return {}
    return found if isinstance(found, dict) else {}


def _key(model: Model) -> str:
    import torch

    height_and_width = "x".join(map(str, model.size))
    return f"{model.name} {height_and_width} {model.dtype} {model.device} {torch.get_num_threads()} threads"
