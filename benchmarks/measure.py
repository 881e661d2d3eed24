"""How things are measured: pairs on one machine, in turns, and the median of their ratios.

Time is CPU time of the whole process, which runs one thread: on a quiet machine that is wall time, and on a
busy one the neighbours do not count.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: what was measured.
        baseline: what it was measured against.
        value: the number; a ratio unless ``unit`` says otherwise.
        target: the number to stay under; None: there is none.
        unit: empty for ratios.
        note: what a reader must know to judge the number.
    """

    what: str
    baseline: str
    value: float
    target: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the number is within its target."""
        return None if self.target is None else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Pair:
    """CPU seconds of two ways to do one thing, measured in turns."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """The median over rounds of ours / theirs of the same round, so that a busy moment hits both."""
        return median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of each."""
        return median(self.ours), median(self.theirs)


def peak() -> float:
    """Return the most bytes that this program has held.

    Linux tells it of the program alone; ``ru_maxrss`` also counts what the parent held when it started us.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def clock(fn: Callable[[], Any]) -> float:
    """Return the CPU seconds one call takes."""
    start = time.process_time()
    fn()
    return time.process_time() - start


def race(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    rounds: int,
    warm: bool = True,
    clock: Callable[[Callable[[], Any]], float] = clock,
) -> Pair:
    """Time both in turns, the order changing each round; one unmeasured round goes first if ``warm``."""
    if warm:
        ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for j in ((0, 1), (1, 0))[i % 2]:
            times[j].append(clock((ours, theirs)[j]))
    return Pair(*times)
