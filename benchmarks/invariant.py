"""Less bias without labels: ``python benchmarks/invariant.py``, some forty minutes of one core.

Real people that ``emoji-people`` was not trained on are sorted into groups by how badly it foretells them;
what the groups tell of gender and skin, beside plain errors. Then the model is tuned so that its errors on
the groups are alike, and what that does to the shares of both attributes is counted. Writes two tables of
docs/bias-features.md; what was measured is kept in --output.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from bias_features import ATTRIBUTES, lines, opened, seeds
from pages import bounds, output, table, write
from torch.nn import functional as F  # noqa: N812
from word_bias import kept

from denoscope import Edit
from denoscope.analysis import LatentGroups, Mitigation, compare_mitigations, latent_groups
from denoscope.editing import InvariantFit, invariant
from denoscope.models import zoo
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes.denoising_errors import error_bank

PAGE = "docs/bias-features.md"
GROUPS, PENALTIES = 8, (0.0, 1.0, 10.0)
LEVELS, DRAWS = 8, 2
FIT: dict[str, Any] = {}
TRIED, STEPS = 128, 20


@cache
def people() -> tuple[torch.Tensor, dict[str, list[str | None]]]:
    """Pictures of women and men [picture, 3, height, width], and the class of each by attribute."""
    real = zoo.data().real
    own = [i for i, one in enumerate(real.labels) if one.gender in ATTRIBUTES["gender"].classes]
    classes = {}
    for name, a in ATTRIBUTES.items():
        known = {label: c for c, labels in a.of.items() for label in labels}
        classes[name] = [known.get(getattr(real.labels[i], name)) for i in own]
    size = opened("emoji-people").size
    small = F.interpolate(real.pictures[own], size, mode="bicubic", antialias=True)
    return small.clamp(0, 1), classes


def grouped(folder: Path) -> LatentGroups:
    """People in groups."""

    def make() -> LatentGroups:
        pictures, _ = people()
        bank = error_bank(opened("emoji-people"), pictures, {"": ""}, levels=LEVELS, draws=DRAWS)
        return latent_groups(bank.errors.mean((1, 2)).float(), groups=GROUPS)

    return kept(folder, "groups", LatentGroups, make)


def told(folder: Path) -> str:
    """What groups and errors tell of each attribute."""
    rows = []
    for name, a in ATTRIBUTES.items():
        frame = grouped(folder).to_frame(people()[1][name]).set_index("label")
        row = frame.loc[a.classes[0]]
        cells = [
            bounds({"mean": row[k], "low": row[f"{k}_low"], "high": row[f"{k}_high"]})
            for k in ("groups", "loss")
        ]
        rows.append((a.classes[0], f"{row['pictures']:.0f} of {frame['pictures'].sum()}", *cells))
    return table(("class", "pictures", "groups tell (AUC)", "errors tell (AUC)"), rows)


def tuned(folder: Path, penalty: float) -> Edit:
    """The change that a penalty makes."""
    path = folder / f"penalty-{penalty:g}.safetensors"
    if not path.exists():
        how = InvariantFit(penalty=penalty, **FIT)
        invariant(opened("emoji-people"), people()[0], grouped(folder).shares, settings=how).save(path)
    return Edit.load(path)


def compared(folder: Path) -> str:
    """What tuning does to the shares of classes."""
    every = {f"penalty {p:g}": tuned(folder, p) for p in PENALTIES}
    rows = []
    for name, a in ATTRIBUTES.items():
        made = kept(folder, f"tuned-{name}", Mitigation, lambda: compare_mitigations(
            opened("emoji-people"), every, seeds=seeds("tried", TRIED), label=a.label, target=a.target,  # noqa: B023
            judge=load_judge("emoji"), steps=STEPS))  # fmt: skip
        for row in lines(made, (name,), a.classes[0]):
            met = every[row[1]].note["groups"] if row[1] in every else None
            apart = "" if met is None else f"{met['before']['apart']:.4f} to {met['after']['apart']:.4f}"
            rows.append((*row[:3], *row[3:4], *row[5:8], apart))
    header = ("attribute", "way", "share", "discrepancy", "kept", "moved", "kernel distance", "errors apart")
    return table(header, rows)


def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    folder = where / f"invariant-{fingerprint(opened('emoji-people'))[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    write(PAGE, "groups", told(folder))
    write(PAGE, "invariant", compared(folder))


if __name__ == "__main__":
    main()
