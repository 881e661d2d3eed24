"""Where a bias can be moved: ``python benchmarks/bias_sites.py``.

For each residual stream of a denoiser: the difference of the mean activations of two classes, step by step
and place by place, is added to new samples; how much more of the class does the judge see, and how like the
plain picture does it stay? Classes of ``emoji-people`` are those of its pictures; of ``emoji`` those that the
prompt names before a profession. A dictionary is trained where this moves what it should and keeps the rest.
Writes two tables of docs/bias-features.md; what was measured is kept in --output. Some twenty minutes of one
core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import word_bias
import xarray as xr
from bias_features import ATTRIBUTES, Attribute, opened
from faster import bfloat16
from pages import bounds, output, table, write
from torch import Tensor

import denoscope
from denoscope.analysis.intervals import interval
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/bias-features.md"
KNOWN, TRIED = range(6000, 6192), range(7000, 7064)
STEPS, BATCH = 20, 32
ASKED = {"emoji-people": ("gender", "skin"), "emoji": ("gender",)}
Means = dict[denoscope.Site, Tensor]


def prompts(name: str, classes: Sequence[str], seeds: Sequence[int]) -> list[str] | None:
    """Prompts in turn: a profession, with a class before it if there are some; None without text."""
    if name == "emoji-people":
        return None
    jobs = word_bias.subjects(word_bias.FULL)
    named = [[f"{c} {job}" for c in classes] if classes else [job] for job in jobs]
    each = [word_bias.article(one) for some in named for one in some]
    return [each[i % len(each)] for i in range(len(seeds))]


def class_of(a: Attribute, texts: Sequence[str] | None, images: Tensor) -> list[str | None]:
    """The class of each sample: that of its prompt, or of its picture."""
    if texts is None:
        return a.label(images)
    return [next(c for c in a.classes if f" {c} " in text) for text in texts]


def batches(seeds: Sequence[int]) -> Iterator[slice]:
    """Parts of some samples."""
    return (slice(i, i + BATCH) for i in range(0, len(seeds), BATCH))


def means(name: str, sites: Sequence[denoscope.Site]) -> dict[str, Means]:
    """Attribute -> site -> mean activation of the first class less that of the other [step, ...]."""
    sums: dict[tuple[str, str], Means] = {}
    counts: dict[tuple[str, str], int] = {}
    texts = prompts(name, ATTRIBUTES["gender"].classes, KNOWN)
    for some in batches(KNOWN):
        own = None if texts is None else texts[some]
        run = denoscope.trace(opened(name), own, seeds=KNOWN[some], steps=STEPS, sites=list(sites))
        for attribute in ASKED[name]:
            a = ATTRIBUTES[attribute]
            labels = class_of(a, own, run.images)
            for c in a.classes:
                mine = [i for i, x in enumerate(labels) if x == c]
                counts[attribute, c] = counts.get((attribute, c), 0) + len(mine)
                into = sums.setdefault((attribute, c), {})
                for site in sites:
                    into[site] = into.get(site, torch.zeros(())) + run[site][:, mine].float().sum(1)
    return {
        attribute: {s: _difference(sums, counts, attribute, s) for s in sites} for attribute in ASKED[name]
    }


def _difference(sums: Mapping[Any, Means], counts: Mapping[Any, int], attribute: str, site: Any) -> Tensor:
    one, other = (sums[attribute, c][site] / counts[attribute, c] for c in ATTRIBUTES[attribute].classes)
    return one - other


@cache
def plainly(name: str) -> Tensor:
    """The pictures of the new samples as they are."""
    texts, parts = prompts(name, (), TRIED), []
    for some in batches(TRIED):
        own = None if texts is None else texts[some]
        parts.append(denoscope.trace(opened(name), own, seeds=TRIED[some], steps=STEPS).images)
    return torch.cat(parts)


def tried(name: str, site: denoscope.Site, gap: Tensor, a: Attribute) -> dict[str, list[float]]:
    """What adding a difference does to each new sample: log odds of the class, likeness to the plain one."""
    model, judge, texts = opened(name), load_judge("emoji"), prompts(name, (), TRIED)
    push = denoscope.Intervention(
        site, lambda x, context: x + gap[context.index].to(x), denoscope.When(branch="cond")
    )
    labels = [list(judge.labels(a.name)).index(label) for label in a.of[a.classes[0]]]
    found: dict[str, list[float]] = {"moved": [], "kept": []}
    for some in batches(TRIED):
        own = None if texts is None else texts[some]
        run: Any = {"seeds": TRIED[some], "steps": STEPS}
        pushed, plain = denoscope.trace(model, own, interventions=[push], **run).images, plainly(name)[some]
        odds = [
            judge.probabilities(p, a.name)[:, labels].sum(1).double().logit(1e-6) for p in (plain, pushed)
        ]
        found["moved"] += (odds[1] - odds[0]).tolist()
        found["kept"] += torch.diagonal(judge.similarity(pushed, plain)).tolist()
    return found


def measured(name: str, folder: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Attribute -> site -> what it does."""
    path = folder / f"bias-sites-{name}-{fingerprint(opened(name))[:12]}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    sites = opened(name).sites("unet/**/resid.post")
    gaps = means(name, sites)
    found = {
        attribute: {str(s): tried(name, s, gaps[attribute][s], ATTRIBUTES[attribute]) for s in sites}
        for attribute in ASKED[name]
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(found).encode())
    return found


def page(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """The table."""
    sites = list(next(iter(found.values())))
    rows = [
        (f"`{site}`", *(_bounds(found[a][site][what]) for a in found for what in ("moved", "kept")))
        for site in sites
    ]
    header = [f"{ATTRIBUTES[a].classes[0]}: {what}" for a in found for what in ("logits", "kept")]
    return table(("site", *header), rows)


def _bounds(values: Sequence[float]) -> str:
    found = interval(xr.DataArray(np.array(values), dims="sample"), ["sample"])
    return bounds({k: float(found[k]) for k in ("mean", "low", "high")})


@bfloat16()
def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    write(PAGE, "sites", page(measured("emoji-people", where)))
    write(PAGE, "sites-emoji", page(measured("emoji", where)))


if __name__ == "__main__":
    main()
