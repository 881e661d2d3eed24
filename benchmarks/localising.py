"""What cheaper ways to rank places keep of the full sweep: ``python benchmarks/localising.py``.

Twenty studies on ``emoji``, each a sweep over all sites of the denoiser: 20 words that the model paints, in
turn the subject of a prompt. On the stored effects the race is run again, so that it meets the very samples
the sweep had. Attribution patching is run on the first studies of both text models. Writes the tables of
docs/localisation.md. Results are kept in --output under a hash of the weights: a run that was stopped goes
on, and other weights are measured anew. Some 40 minutes of one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from faster import bfloat16
from pages import bounds, output, table, write

import denoscope
from denoscope.analysis import Mediation, Noise, Scores, agreement, attribution_patching, race, trace_denoiser
from denoscope.analysis.intervals import proportion
from denoscope.analysis.metrics import judge_probability
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/localisation.md"
WORDS = (
    "firefighter", "astronaut", "cook", "judge", "farmer", "mechanic", "pilot", "singer", "dog", "cat",
    "pizza", "rocket", "lemon", "bear", "banana", "bus", "guitar", "cactus", "fish", "crown",
)  # fmt: skip
PEOPLE = 8  # the first of them
SEEDS, STEPS, K = 16, 6, 3
APPROXIMATED = 5
"""Studies of each model on which attribution patching is tried, and its seeds."""
FEW = 4


def prompt(i: int) -> str:
    """The text of a study."""
    return f"a noto emoji of a {'woman ' if i < PEOPLE else ''}{WORDS[i]}"


def study(name: str, i: int, seeds: Sequence[int], folder: Path) -> tuple[Mediation, float]:
    """The full sweep of one study, and the CPU seconds that it took."""
    path = folder / f"{name}-{WORDS[i]}-{len(seeds)}.zarr"
    clock = path.with_suffix(".json")
    if not clock.exists():
        start = time.process_time()
        found = trace_denoiser(opened(name), [prompt(i)], WORDS[i], seeds=seeds, **settings(name, i))
        found.save(path)
        clock.write_text(json.dumps(time.process_time() - start))
    return Mediation.load(path), float(json.loads(clock.read_text()))


def settings(name: str, i: int) -> dict[str, object]:
    """What the sweep and its approximation have in common."""
    metric = judge_probability(load_judge(name), "concept", WORDS[i])
    return {"metric": metric, "corruption": Noise(draws=1), "steps": STEPS}


@cache
def opened(name: str) -> denoscope.Model:
    """One of the embedded models."""
    return denoscope.load(name)


def raced(folder: Path) -> str:
    """How often a race ends with the top of the full sweep, and what it spares."""
    same, first, spared = list[bool](), list[bool](), list[float]()
    for i in range(len(WORDS)):
        effects = study("emoji", i, range(SEEDS), folder)[0].indirect_effect.values

        def score(
            sites: Sequence[denoscope.Site], seeds: Sequence[int], all_: xr.DataArray = effects
        ) -> Scores:
            return Scores(all_.sel(site=[str(s) for s in sites], seed=list(seeds)))

        best = effects.mean([d for d in effects.dims if d != "site"]).to_series().nlargest(K).index
        found = race(score, list(effects["site"].values), seeds=range(SEEDS), k=K)
        same.append({str(s) for s in found.top} == set(best))
        first.append(str(found.top[0]) == best[0])
        spared.append(1 - found.runs / found.full_runs)
    n = len(WORDS)
    rows = [
        (f"the same {K} sites as the full sweep", _share(same)),
        ("the same best site", _share(first)),
        ("runs spared, mean", f"{sum(spared) / n:.0%}, from {min(spared):.0%} to {max(spared):.0%}"),
    ]
    return table((f"race for the best {K}, {n} studies of {SEEDS} seeds", ""), rows)


def _share(hits: Sequence[bool]) -> str:
    values = xr.DataArray(np.array(hits, dtype=float), dims="study")
    row = proportion(values, ["study"])
    return f"{sum(hits)} of {len(hits)} [{float(row['low']):.2f}, {float(row['high']):.2f}]"


def approximated(folder: Path) -> str:
    """Rank correlation and cost of attribution patching beside the sweep."""
    rows = []
    for name in ("emoji", "emoji-dit"):
        for i in range(APPROXIMATED):
            true, slow = study(name, i, range(FEW), folder)
            path = folder / f"{name}-{WORDS[i]}-attribution.json"
            if not path.exists():
                start = time.process_time()
                fast = attribution_patching(
                    opened(name), [prompt(i)], WORDS[i], seeds=range(FEW), **settings(name, i)
                )
                row = agreement(fast, true.indirect_effect).to_dict()
                took = time.process_time() - start
                path.write_text(json.dumps({**row, "seconds": took, "top": bool(row["top"])}))
            found = json.loads(path.read_text())
            rank = bounds({**found, "mean": found["rank"]})
            rows.append(
                (
                    f"`{name}`, {WORDS[i]}",
                    rank,
                    "yes" if found["top"] else "no",
                    f"{slow / found['seconds']:.1f} x",
                )
            )
    return table(("study", "rank correlation with the true effect", "same best site", "faster"), rows)


@bfloat16()
def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    folder = where / f"localising-{fingerprint(opened('emoji'))[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    write(PAGE, "race", raced(folder))
    write(PAGE, "attribution", approximated(folder))


if __name__ == "__main__":
    main()
