"""Where a bias can be moved: ``python benchmarks/bias_sites.py``.

For each residual stream of ``emoji-people``: the difference of the mean activations of two classes, step by
step and place by place, is added to new samples; how much more of the class does the judge see, and how like
the plain picture does it stay? A dictionary is trained where this moves what it should and keeps the rest.
Writes a table of docs/bias-features.md; what was measured is kept in --output. Some ten minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from bias_features import ATTRIBUTES, PAGE, Attribute, opened
from faster import bfloat16
from pages import ROOT, bounds, table, write
from torch import Tensor

import denoscope
from denoscope.analysis.intervals import interval
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint

SEEDS = {"known": range(6000, 6192), "tried": range(7000, 7064)}
STEPS, BATCH = 20, 32
Means = dict[denoscope.Site, Tensor]


def means(sites: Sequence[denoscope.Site]) -> dict[str, Means]:
    """Attribute -> site -> mean activation of the first class less that of the other [step, ...]."""
    sums: dict[tuple[str, str], Means] = {}
    counts: dict[tuple[str, str], int] = {}
    for first in range(0, len(SEEDS["known"]), BATCH):
        seeds = SEEDS["known"][first : first + BATCH]
        run = denoscope.trace(opened("emoji-people"), seeds=seeds, steps=STEPS, sites=list(sites))
        for name, a in ATTRIBUTES.items():
            said = a.label(run.images)
            for c in a.classes:
                mine = [i for i, x in enumerate(said) if x == c]
                counts[name, c] = counts.get((name, c), 0) + len(mine)
                own = sums.setdefault((name, c), {})
                for site in sites:
                    own[site] = own.get(site, torch.zeros(())) + run[site][:, mine].float().sum(1)
    return {name: {s: _difference(sums, counts, name, a, s) for s in sites} for name, a in ATTRIBUTES.items()}


def _difference(
    sums: Mapping[Any, Means], counts: Mapping[Any, int], name: str, a: Attribute, s: Any
) -> Tensor:
    one, other = ((sums[name, c][s] / counts[name, c]) for c in a.classes)
    return one - other


def tried(site: denoscope.Site, gap: Tensor, a: Attribute) -> dict[str, list[float]]:
    """What adding a difference does to each new sample: log odds of the class, likeness to the plain one."""
    model, judge, seeds = opened("emoji-people"), load_judge("emoji"), SEEDS["tried"]
    push = denoscope.Intervention(site, lambda x, context: x + gap[context.index].to(x))
    found: dict[str, list[float]] = {"moved": [], "kept": []}
    for first in range(0, len(seeds), BATCH):
        run: Any = {"seeds": seeds[first : first + BATCH], "steps": STEPS}
        plain, pushed = (denoscope.trace(model, interventions=i, **run).images for i in ([], [push]))
        odds = [
            judge.probabilities(p, a.name)[:, _of(a, judge)].sum(1).double().logit(1e-6)
            for p in (plain, pushed)
        ]
        found["moved"] += (odds[1] - odds[0]).tolist()
        found["kept"] += torch.diagonal(judge.similarity(pushed, plain)).tolist()
    return found


def _of(a: Attribute, judge: Any) -> list[int]:
    return [list(judge.labels(a.name)).index(label) for label in a.of[a.classes[0]]]


def measured(folder: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Attribute -> site -> what it does."""
    path = folder / "bias-sites.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    sites = opened("emoji-people").sites("unet/**/resid.post")
    gaps = means(sites)
    found = {name: {str(s): tried(s, gaps[name][s], a) for s in sites} for name, a in ATTRIBUTES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(found).encode())
    return found


def page(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """The table."""
    sites = list(next(iter(found.values())))
    rows = []
    for site in sites:
        cells = [_bounds(found[name][site][what]) for name in found for what in ("moved", "kept")]
        rows.append((f"`{site}`", *cells))
    header = [f"{a.classes[0]}: {what}" for a in ATTRIBUTES.values() for what in ("logits", "kept")]
    return table(("site", *header), rows)


def _bounds(values: Sequence[float]) -> str:
    found = interval(xr.DataArray(np.array(values), dims="sample"), ["sample"])
    return bounds({k: float(found[k]) for k in ("mean", "low", "high")})


@bfloat16()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    folder = output / f"bias-{fingerprint(opened('emoji-people'))[:12]}"
    write(PAGE, "sites", page(measured(folder)))


if __name__ == "__main__":
    main()
