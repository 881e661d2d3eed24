"""The tools in use, beside this one, for docs/beside.md: ``python benchmarks/beside.py``.

What one writes for a task there and here stands in ``beside_snippets``; its lines are counted, and what can
run is run on ``emoji``: rows of the denoiser are counted, CPU time is measured in turns, and results are
compared. What was read of the tools is in ``facts.json``, each with its source; rows of what cannot run are
arithmetic on that. Nothing is fetched.

DAAM and eval-unlearn are no dependencies. ``--others FOLDER``, where they were put by ``pip install --no-deps
--target FOLDER daam==0.2.0 eval-unlearn==1.1.2``, measures them anew; without it their last numbers are kept.
Some two minutes of one core.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import logging
import os
import re
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from beside_checks import checked
from measure import clock, race
from pages import table, write
from torch import Tensor

import denoscope
from denoscope.editing import quickfix
from denoscope.models import zoo

PAGE = "docs/beside.md"
HOME = Path(__file__).parent / "beside_snippets"
KEPT = HOME / "kept.json"
STEPS, ROUNDS = 8, 3
NEEDS = {"nnsight": "nnsight", "daam": "daam", "eval_unlearn": "eval-unlearn"}
"""Snippets of others that can run, and the package that they need."""
NOT_WRITTEN = re.compile(r"\s*(#.*|cat > .*<<.*|python - <<.*|[A-Z]+)?$")
"""Lines of a shell snippet that nobody writes: comments, and what wraps a file."""
PARTS = ("start", "work", "use")
"""The functions that a snippet is cut into: what is at hand, what is measured, and what becomes of it."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What a snippet took: rows of the denoiser, CPU seconds; of those kept for the next time, when.

    ``apart`` is the largest difference of its result from the one beside it.
    """

    rows: int
    seconds: float
    when: str = ""
    apart: float = 0.0


# what one writes --------------------------------------------------------------------------------------------


def facts() -> dict[str, Facts]:
    """What is known of each tool, by its name."""
    found: dict[str, Facts] = json.loads((HOME / "facts.json").read_text())
    return {name: {"snippet": name, **fact} for name, fact in found.items()}


def place(side: str, fact: Facts) -> Path:
    """The snippet of a task, ``here`` or ``there``."""
    (found,) = (HOME / side).glob(f"{fact['snippet']}.*")
    return found


def written(path: Path) -> int:
    """Count the lines that one writes: of code, without docstring, blanks, and the heads of the functions."""
    text = path.read_text()
    if path.suffix == ".sh":
        return sum(not NOT_WRITTEN.match(line) for line in text.splitlines())
    tree = ast.parse(text)
    heads = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in PARTS}
    first = tree.body[0].end_lineno or 0  # its docstring
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and i > first and i not in heads for i, line in lines)


def lines(fact: Facts) -> tuple[str, str]:
    """Lines there and here; those of their own files that have to be changed are told apart."""
    changed = sum(len(each) for each in fact.get("changes", {}).values())
    there = str(written(place("there", fact))) + (f" + {changed} changed" if changed else "")
    return there, str(written(place("here", fact)))


# what it takes ----------------------------------------------------------------------------------------------


def task_of(fact: Facts, folder: Path) -> SimpleNamespace:
    """The values of a task, as snippets get them."""
    task = SimpleNamespace(**fact["values"], steps=STEPS, folder=str(folder / "edited"), file="")
    if "words" in fact["values"]:
        task.file = str(folder / "edit.safetensors")
        quickfix(denoscope.load("emoji"), task.words).save(task.file)
    return task


def opened(path: Path) -> Any:
    """A snippet as a module, under a name that no package has."""
    spec = importlib.util.spec_from_file_location(f"beside_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def ready(path: Path, source: str, task: SimpleNamespace) -> Callable[[], Any]:
    """Open what a snippet needs; return its work, without bars."""
    module = opened(path)
    started = module.start(source, task)
    for part in (started, getattr(started, "pipe", None), getattr(started, "pipeline", None)):
        if hasattr(part, "set_progress_bar_config"):
            part.set_progress_bar_config(disable=True)
    return lambda: module.work(started, task)


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count the rows of every denoiser of the process, whoever calls it."""
    found: list[int] = []

    def count(module: Any, _args: Any, out: Any) -> None:
        if type(module).__name__ == "UNet2DConditionModel":
            found.append(len(out[0] if isinstance(out, tuple) else out.sample))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def counted(work: Callable[[], Any]) -> tuple[int, Any]:
    """The rows of one call, which also warms it up, and its result."""
    with counting() as found:
        result = work()
    return sum(found), result


def numbers(result: Any) -> Tensor:
    """The result of a snippet that runs on both sides: activations, maps, or pictures in 0..1."""
    if isinstance(result, list):
        return torch.stack([torch.from_numpy(np.asarray(picture) / 255) for picture in result])
    return (result if isinstance(result, Tensor) else torch.from_numpy(result.values)).squeeze()


def measured(fact: Facts, folder: Path, there: bool) -> tuple[Measured, Measured | None]:
    """What the task takes here, and there if it can run; both in turns."""
    task = task_of(fact, folder)
    ours = ready(place("here", fact), "emoji", task)
    rows, result = counted(ours)
    if not there:
        return Measured(rows, median(clock(ours) for _ in range(ROUNDS))), None
    theirs = ready(place("there", fact), str(folder / "emoji"), task)
    rows_there, beside = counted(theirs)
    apart = float((numbers(result) - numbers(beside)).abs().max())
    seconds = race(ours, theirs, ROUNDS, warm=False).seconds
    return Measured(rows, seconds[0]), Measured(rows_there, seconds[1], apart=apart)


def arithmetic(fact: Facts, layers: int) -> int:
    """Rows there by the formula: numbers of the task stand for themselves, lists for their lengths."""
    known = {"steps": STEPS, "layers": layers}
    for name, value in fact["values"].items():
        known[name] = value if isinstance(value, int) else len(value)
    return int(eval(fact["rows"]["formula"], {"__builtins__": {}}, known))


def runnable(name: str) -> bool:
    """Whether a package is there."""
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def kept() -> dict[str, Any]:
    """Numbers of packages that are no dependencies, as they were last measured."""
    found: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def all_measured(known: Mapping[str, Facts], folder: Path) -> dict[str, tuple[Measured, Measured | None]]:
    """Measure every task; what was measured with packages that are no dependencies is kept."""
    found, older = {}, kept()
    for name, fact in known.items():
        package = NEEDS.get(fact["snippet"])
        here, there = measured(fact, folder, bool(package and runnable(package)))
        if package and there is None and name in older:
            here, there = (Measured(**each) for each in older[name])
        elif package and package != "nnsight" and there is not None:
            when = f"{package} {version(package)}, {date.today()}"
            here, there = replace(here, when=when), replace(there, when=when)
            KEPT.write_text(json.dumps({**kept(), name: [vars(here), vars(there)]}, indent=2) + "\n")
        found[name] = here, there
    return found


# what is told -----------------------------------------------------------------------------------------------


def told(seconds: float) -> str:
    """Seconds, in words."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def line(name: str, fact: Facts, here: Measured, there: Measured | None, layers: int) -> Sequence[str]:
    """A tool and its task."""
    rows = str(there.rows) if there else f"*{arithmetic(fact, layers)}*" if "rows" in fact else "not run"
    time = told(there.seconds) if there else "not run"
    apart = f"{there.apart:.0e}" if there and there.apart else "0" if there else ""
    mark = "†" if here.when else ""
    pairs = (lines(fact), (rows, str(here.rows)), (time, told(here.seconds) + mark))
    return (name, fact["here"], fact["task"], *(" → ".join(pair) for pair in pairs), apart)


def formula(name: str, fact: Facts, layers: int) -> Sequence[str]:
    """Rows that were not counted but computed."""
    rows = fact["rows"]
    return name, f"`{rows['formula']}`", str(arithmetic(fact, layers)), rows["why"], rows["where"]


def limits(name: str, fact: Facts) -> str:
    """What a tool asks for and cannot do, and where that was read."""
    changed = [f"`{file}`, {'; '.join(each)}" for file, each in fact.get("changes", {}).items()]
    first = [f"to change before it runs: {', '.join(changed)}"] if changed else []
    read = f"read on {fact['date']}: {'; '.join(fact['read'])}"
    head = f"- **{name}**: {fact['does']}. Asks for {fact['asks']}. Opens {fact['opens']}."
    return "\n".join([head, *(f"  - {each}" for each in (*fact["cannot"], *first, read))])


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--others", type=Path, help="a folder with DAAM and eval-unlearn, to run them too")
    quiet(parser.parse_args().others)
    known, layers = facts(), len(denoscope.load("emoji").sites("unet/**/cross_attn.out"))
    with tempfile.TemporaryDirectory() as folder:
        zoo.export("emoji", Path(folder) / "emoji")
        found = all_measured(known, Path(folder))
    notes = sorted({here.when for here, _ in found.values() if here.when})
    more = f"\n\n† measured with {'; '.join(notes)}." if notes else ""
    header = ("there", "here", "the task", "lines", "rows", "time", "results apart")
    write(PAGE, "beside", table(header, [line(n, known[n], *found[n], layers) for n in known]) + more)
    computed = [formula(name, fact, layers) for name, fact in known.items() if "rows" in fact]
    write(PAGE, "beside-rows", table(("tool", "rows", "of this task", "why", "read in"), computed))
    write(PAGE, "beside-limits", "\n".join(limits(name, fact) for name, fact in known.items()))
    write(PAGE, "beside-checks", table(("what their code goes by", "what there is"), checked()))


def quiet(others: Path | None) -> None:
    """One thread, no network, no chatter; and the others' packages, if they are given."""
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    if others is not None:
        sys.path.append(str(others.resolve()))
        if importlib.util.find_spec("spacy") is None:  # daam imports it, and its word maps do not use it
            tokens = types.ModuleType("spacy.tokens")
            tokens.Token = object  # type: ignore[attr-defined]
            stand_in = types.ModuleType("spacy")
            stand_in.tokens = tokens  # type: ignore[attr-defined]
            sys.modules |= {"spacy": stand_in, "spacy.tokens": tokens}


if __name__ == "__main__":
    main()
