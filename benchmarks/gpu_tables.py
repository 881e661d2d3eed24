"""The tables of ``gpu.py``: a row for each size that was measured, and a line that says on what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pages

TARGET = 1.03
NOTHING = "Not run on a GPU yet."
Found = Mapping[str, Any]
Cells = Callable[[Found], Sequence[str]]


def text(found: Mapping[str, Found]) -> str:
    """All tables of what was found, size by size."""
    if not found:
        return NOTHING
    shown = [_about(next(iter(found.values()))["about"])]
    for caption, part, header, cells in TABLES:
        rows = [_row(size, one["parts"], part, header, cells) for size, one in found.items()]
        shown.append(f"{caption}\n\n{pages.table(('size', *header), rows)}")
    return "\n\n".join(shown)


def _row(size: str, parts: Found, part: str, header: Sequence[str], cells: Cells) -> Sequence[str]:
    one = parts.get(part, {"failed": "not measured yet"})
    if "failed" in one:
        return (size, one["failed"], *[""] * (len(header) - 1))
    return (size, *cells(parts))


def _about(told: Found) -> str:
    kind = "Tiny models: a rehearsal, no measurement. " if told["tiny"] else ""
    memory = f" of {_bytes(told['memory'])}" if told["memory"] else ""
    versions = ", ".join(f"{name} {told[name]}" for name in ("denoscope", "torch", "diffusers"))
    return (
        f"{kind}{told['device']}{memory}; {versions}; random weights, those of published size in bfloat16; "
        f"{told['steps']} steps, one picture, the family's own guidance and size."
    )


def _bytes(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _tracing(parts: Found) -> Sequence[str]:
    one = parts["tracing"]
    met = "met" if one["ratio"] <= TARGET else "not met"
    same = "equal to the bit" if one["equal"] else "differ" if one["finite"] else "not finite"
    times = (_time(one["plain"]), _time(one["traced"]), f"{one['ratio']:.3f}, {met}", _time(one["first"]))
    return (*times, _bytes(one["kept"]), _bytes(one["peak_plain"]), _bytes(one["peak_traced"]), same)


def _whole(seconds: float, measured: int, rows: int) -> str:
    """The time of all rows: measured, or at the same pace as those that were."""
    if measured == rows:
        return _time(seconds)
    return f"about {_time(seconds * rows / measured)}, from {measured} rows in {_time(seconds)}"


def _map(parts: Found) -> Sequence[str]:
    one, beside = parts["map"], parts.get("published", {"failed": ""})
    places = f"{one['sites']} x {one['steps']}"
    ours = _whole(one["seconds"], one["measured"], one["rows"])
    part = "all" if one["measured"] == one["rows"] else f"{one['part'][0]} x {one['part'][1]}"
    theirs, most = beside.get("failed", ""), ""
    if "failed" not in beside:
        theirs, most = _whole(beside["seconds"], beside["measured"], beside["rows"]), _bytes(beside["peak"])
    share = f"{one['rows'] / one['published']:.3f}"
    counts = (str(one["rows"]), str(one["published"]), share)
    how = f"{ours}; batches of {one['batch']}, {one['clean_run']}"
    return (places, *counts, part, how, theirs, _bytes(one["peak"]), most)


def _sweep(parts: Found) -> Sequence[str]:
    one = parts["sweep"]
    if not one["batches"]:
        return ("", "", one["ended"])
    paces = ", ".join(f"{b['batch']}: {b['pace']:.3g}" for b in one["batches"])
    most = one["batches"][-1]
    return (paces, f"{_bytes(most['peak'])} at {most['batch']}", f"the end {one['ended']}")


def _compiling(parts: Found) -> Sequence[str]:
    one = parts["compiling"]
    times = (_time(one["eager"]), _time(one["compiled"]), _time(one["traced"]))
    ratio = f"{one['traced'] / one['compiled']:.3f}, {'equal to the bit' if one['equal'] else 'differ'}"
    graphs = f"{one['parts']} parts in {one['graphs']} graphs, {one['breaks']} breaks; {_time(one['until'])}"
    rest = (f"{one['apart']:.1e}", graphs, _bytes(one["peak"]), "yes" if one["refused"] else "NO")
    return (*times, ratio, *rest)


def _crossings(parts: Found) -> Sequence[str]:
    return [
        f"{run['ours']:g} ({run['expected']}) + {run['others']:g}, {run['waits']:g} waits; "
        f"{run['always']:g} a run"
        for run in parts["crossings"].values()
    ]


TABLES: Sequence[tuple[str, str, Sequence[str], Cells]] = (
    (
        f"**Tracing 16 sites.** Ratio of medians of runs in turns; target {TARGET}. The first trace of an "
        "opened model also reads and hashes all of its weights.",
        "tracing",
        ("plain", "traced", "ratio", "first trace", "kept", "peak, plain", "peak, traced", "latents"),
        _tracing,
    ),
    (
        "**A causal map of all attention outputs that read the text, each at each step.** Rows are counted. "
        "Where the time says *about*, a part was measured, and the rest is at the pace of its rows; the "
        "published scheme runs clean, corrupted and restored anew for each site and step.",
        "map",
        (
            *("sites x steps", "rows", "rows, published", "share", "measured"),
            *("time", "time, published", "peak", "peak, published"),
        ),
        _map,
    ),
    (
        "**Sweeps.** Rows a second by the size of the batch, until memory or time ends.",
        "sweep",
        ("rows a second", "peak", "ended at"),
        _sweep,
    ),
    (
        "**Compiled parts beside hooks.** All blocks, attention and MLPs are compiled in which none of up to "
        "16 watched sites lies.",
        "compiling",
        (
            *("plain, eager", "plain, compiled", "traced, compiled", "traced / plain", "apart from eager"),
            *("compiled, and first run", "peak", "sites inside refused"),
        ),
        _compiling,
    ),
    (
        "**Crossings between GPU and main memory at each step:** by denoscope (expected) + by others, which "
        "are diffusers' schedulers, and how often torch says that it waits for the GPU; then those of a run "
        "whatever its length.",
        "crossings",
        ("trace of 16 sites", "map of 2 sites, clean run kept", "map of 2 sites, in lock-step"),
        _crossings,
    ),
)
