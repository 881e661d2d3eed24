"""A benchmark in small, before hours are spent on it: ``python benchmarks/rehearse.py mediation``.

Goes through all that a benchmark does, its writing too: with the sizes of ``SMALL``, and into a copy of what
it writes, under --output. Then once more, and says what of the kept files was made anew: reports may be, what
was measured not. A minute or two of one core each; ``make rehearse`` goes through all.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pages

from denoscope.models import zoo

WRITTEN = ("README.md", "docs", "denoscope/bench/data", "probes/dictionary/made")


def quick(run: Callable[..., Any]) -> Callable[..., Any]:
    """What takes ``quick`` takes it."""
    return lambda *args, **how: run(*args, **{**how, "quick": True})


SMALL: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "mediation": lambda m: {
        "STEPS": 2,
        "CUTS": (0, 1, 2),
        "SIZES": dict.fromkeys(m.SIZES, (2, 1)),
        "FOUR": m.FOUR[:2],
        "ATTRIBUTES": {k: dict(list(v.items())[:1]) for k, v in m.ATTRIBUTES.items()},
    },
    "carriers": lambda m: {"WORDS": m.WORDS[::13], "PEOPLE": 1, "FEW": 4, "SEEDS": range(1), "STEPS": 2},
    "word_places": lambda _: {"SCENES": 4, "BLOCK": 2, "CHECKED": 4},
    "word_experiments": lambda m: {"FULL": m.bias.SMALL},
    "dictionaries": lambda m: {
        **{"RUN": {"seeds": range(4), "steps": 2}, "FORMS": m.FORMS[:1]},
        **{"UPDATES": 4, "ROWS": 32},
    },
    "circuits": lambda m: {
        "SAMPLES": 4,
        "STEPS": 2,
        "UPDATES": 4,
        "ROWS": 32,
        "WORDS": m.WORDS[:1],
        "AT": (1,),
    },
    "directions": lambda m: {"FULL": m.SMALL},
    "bias_sites": lambda _: {"KNOWN": range(24), "TRIED": range(2), "STEPS": 2},
    "shipped_dictionary": lambda _: {
        **{"CAPTIONS": 4, "JOBS": 4, "RUN": {"steps": 2}, "UPDATES": 4, "ROWS": 32},
        "FILE": Path(tempfile.mkdtemp()) / "emoji.safetensors",
    },
    "bias_features": lambda m: {"FULL": m.SMALL},
    "bias_alike": lambda _: {
        **{"TRIED": 2, "ROUNDS": 1, "SITES": ("middle",)},
        "SIZES": importlib.import_module("bias_features").SMALL,
    },
    "planted_bias": lambda _: {
        "SIZES": replace(importlib.import_module("bias_features").SMALL, known=64, tried=8)
    },
    "invariant": lambda _: {
        **{"LEVELS": 2, "DRAWS": 1, "TRIED": 4, "STEPS": 2, "PENALTIES": (1.0,)},
        "FIT": {"steps": 2, "draws": 4, "levels": 2},
    },
    "guidance": lambda m: {"JOBS": m.JOBS[:2], "SEEDS": range(2), "STEPS": 4},
    "information": lambda m: {"SIZES": m.Sizes(draws=2, samples=8, pairs=1, pictures=1, captions=3)},
    "classification": lambda m: {"SIZES": m.Sizes(pictures=2, learned=4, seeds=1, models=m.MODELS[:1])},
    "two_denoisers": lambda _: {"DRAWS": 1, "STEPS": 2},
    "localising": lambda m: {
        **{"WORDS": m.WORDS[7:9], "PEOPLE": 1, "SEEDS": 6, "STEPS": 2},
        **{"APPROXIMATED": 1, "FEW": 2},
    },
    "truth": lambda _: {"SEEDS": (0,)},
    "robustness": lambda m: {"CONCEPTS": {"fox": m.CONCEPTS["fox"]}, "Budget": m.Budget.short},
    "quickfix_settings": lambda m: {"PAINTED": m.PAINTED[:1]},
    "quickfix_keep": lambda m: {"PAIRS": dict(list(m.PAIRS.items())[:2])},
    "own_words": lambda m: {"PAIRS": {kind: pairs[:1] for kind, pairs in m.PAIRS.items()}},
    "findings_drive_changes": lambda _: {
        **{"TAKEN": {"professions": 2}, "RUN": {"seeds": 1, "steps": 2, "draws": 1}},
        **{"UPDATES": 4},
    },
    "edits": lambda m: {"edits": quick(m.edits), "cost": quick(m.cost)},
    "beside": lambda _: {"STEPS": 2, "ROUNDS": 1},
    "plan_time": lambda m: {"MODELS": m.MODELS[:1], "SEEDS": 1, "STEPS": 1},
    "page_picture": lambda _: {"DEMO": ("demo", "--quick", "--seeds", "2")},
    "gpu": lambda _: {"LIMIT": 60.0},
}
"""What is smaller; the names are those of the benchmark's own module."""
FEW = ["--seeds", "1", "--steps", "2"]
UNET = str(zoo.folder("emoji") / "unet")
ARGUMENTS: Mapping[str, Sequence[Sequence[str]]] = {
    "carriers": ([], ["--trained", str(zoo.folder("emoji")), "--beside", str(zoo.folder("emoji"))]),
    "two_denoisers": (["--seeds", "2"],),
    "truth": (["--places", "1"],),
    "robustness": (FEW, ["--full", UNET, "--retained", UNET, "--seeds", "1", "--steps", "4"]),
    "quickfix_settings": (FEW,),
    "quickfix_keep": (FEW,),
    "own_words": (FEW,),
    "edits": ([], ["--model", "emoji-dit"]),
    "gpu": (["--tiny"],),
}
"""How it is called, where not without arguments."""


def rehearse(name: str, folder: Path) -> str:
    """Run a benchmark twice; say what CPU seconds each round took, and what the second one made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for place in WRITTEN:
        copy = shutil.copytree if (pages.ROOT / place).is_dir() else shutil.copy
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        copy(pages.ROOT / place, folder / place)
    pages.ROOT = folder  # before any benchmark takes it from there
    module = importlib.import_module(name)
    for key, value in SMALL[name](module).items():
        getattr(module, key)  # it has one to replace
        setattr(module, key, value)
    first, kept = timed(module, name), made(folder)
    again = timed(module, name)
    anew = [str(path.relative_to(folder)) for path, moment in made(folder) if (path, moment) not in kept]
    return f"{name}: {first:.0f} s, {again:.0f} s; of {len(kept)} files anew: {', '.join(anew) or 'none'}"


def timed(module: Any, name: str) -> float:
    """Call it as it is called, and return the CPU seconds that this took."""
    begun = time.process_time()
    for arguments in ARGUMENTS.get(name, ([],)):
        sys.argv = [f"{name}.py", *arguments]
        module.main()
    return time.process_time() - begun


def made(folder: Path) -> list[tuple[Path, int]]:
    """What a benchmark keeps, with the moment at which it was written."""
    return [(p, p.stat().st_mtime_ns) for p in sorted((folder / "build").rglob("*")) if p.is_file()]


def main() -> None:
    """Rehearse one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=list(SMALL))
    parser.add_argument("--output", type=Path, default=pages.ROOT / "build" / "rehearsal")
    options = parser.parse_args()
    sys.stdout.write(rehearse(options.name, options.output.resolve() / options.name) + "\n")


if __name__ == "__main__":
    main()
