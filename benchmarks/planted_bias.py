"""A bias that was put there, and what takes it out: ``python benchmarks/planted_bias.py``.

``emoji-people`` with a planted bias: women mostly have dark skin, men mostly have not. A dictionary is
trained on it, features of gender and of skin are found, and each sample is pushed to a skin of its own, drawn
without regard to gender. How much of the tie is left, beside features as active, plain class contrast, mean
activations, and the model before anything was planted? Writes a table of docs/bias-features.md; what was
measured is kept in --output, what features tell in the model as it ships by ``bias_features.py``. Some
forty minutes of one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from bias_features import ATTRIBUTES, FULL, asked, dictionary, fits, opened, seeds
from faster import bfloat16
from pages import bounds, output, table, write
from word_bias import kept, says

from denoscope.analysis import BiasFeatures, Mitigation, compare_mitigations, stratified
from denoscope.analysis.intervals import proportion
from denoscope.editing import planted_bias
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes import Dictionary

PAGE = "docs/bias-features.md"
GENDERS = "woman", "man"
SIZES = replace(FULL, tried=256)


@dataclass(frozen=True)
class Found:
    """What was found in one model, with the bias or without."""

    dictionary: Dictionary
    of: Mapping[str, BiasFeatures]

    def shared(self, n: int) -> int:
        """How many of the first features of gender are among those of skin."""
        top = [{f for c in one.classes for f in one.top(c, n)} for one in self.of.values()]
        return len(set.intersection(*top))


def found(folder: Path) -> Found:
    """A dictionary of the model as it is now, and the features of both attributes."""
    return Found(
        dictionary(folder, "upper", SIZES), {a: asked(folder, "upper", a, SIZES) for a in ATTRIBUTES}
    )


def drawn() -> list[str]:
    """The skin that each sample is pushed to."""
    return stratified(ATTRIBUTES["skin"].target, SIZES.tried)


def ways(at: Found) -> dict[str, Any]:
    """Each sample is pushed to a skin that was drawn for it."""
    skin, wanted = at.of["skin"], drawn()
    how: dict[str, Any] = {"features": SIZES.features}
    made: dict[str, Any] = {
        told: [(skin.towards(at.dictionary, c, 1.0, by=by, **how),) for c in wanted]
        for told, by in (("features", "attribution"), ("contrast", "contrast"), ("as active", "matched"))
    }
    return {**made, "means": [(skin.mean_difference(c),) for c in wanted]}


def tried(folder: Path, name: str, every: Mapping[str, Any]) -> Mitigation:
    """What becomes of the same seeds."""
    return kept(folder, f"{name}-ways", Mitigation, lambda: compare_mitigations(
        opened("emoji-people"), every, seeds=seeds("tried", SIZES.tried), label=gender_and_skin,
        target={f"{g}, {s}": 0.25 for g in GENDERS for s in ATTRIBUTES["skin"].classes},
        judge=load_judge("emoji"), steps=SIZES.steps))  # fmt: skip


def gender_and_skin(images: torch.Tensor) -> list[str | None]:
    """Both of what a picture shows; None where it shows no woman and no man."""
    skins = ATTRIBUTES["skin"].label(images)
    return [
        f"{g}, {s}" if g in GENDERS and s else None
        for g, s in zip(says("gender")(images), skins, strict=True)
    ]


def difference(one: tuple[int, int], other: tuple[int, int]) -> dict[str, float]:
    """Difference of two shares, (how many, of how many), with Newcombe's interval (1998, method 10)."""
    a, b = (
        {
            k: float(v)
            for k, v in proportion(xr.DataArray([1.0] * k + [0.0] * (n - k), dims="p"), ["p"]).items()
        }
        for k, n in (one, other)
    )
    mean = a["mean"] - b["mean"]
    return {
        "mean": mean,
        "low": mean - ((a["mean"] - a["low"]) ** 2 + (b["high"] - b["mean"]) ** 2) ** 0.5,
        "high": mean + ((a["high"] - a["mean"]) ** 2 + (b["mean"] - b["low"]) ** 2) ** 0.5,
    }


def tied(said: Sequence[str]) -> tuple[str, ...]:
    """Shares of dark skin among women and men, and the tie."""
    counts = [(said.count(f"{g}, dark"), sum(x.startswith(f"{g},") for x in said)) for g in GENDERS]
    tie = bounds(difference(*counts)) if all(n > 1 for _, n in counts) else "none of a gender"
    return (*(f"{k} of {n}" for k, n in counts), tie)


def lines(made: Mitigation, name: str, ways: Sequence[str]) -> list[tuple[str, ...]]:
    """Shares of dark skin, the tie, whom a push to dark skin reaches, and what was kept."""
    frame, wanted = made.to_frame().set_index("way"), drawn()
    labels = {way: [str(x) for x in made.data["label"].sel(way=way).values] for way in ways}
    was = [x.split(",")[0] for x in labels["plain"]]
    rows = [
        (name, "what was drawn", *tied([f"{g}, {w}" for g, w in zip(was, wanted, strict=True)]), *[""] * 4)
    ]
    for way, said in labels.items():
        reached = []
        for gender in GENDERS:
            own = [x for x, g, w in zip(said, was, wanted, strict=True) if (g, w) == (gender, "dark")]
            reached.append(f"{sum(x.endswith(', dark') for x in own)} of {len(own)}")
        at = frame.loc[way]
        like = [
            bounds({"mean": at[k], "low": at[f"{k}_low"], "high": at[f"{k}_high"]}, digits)
            for k, digits in (("kept", 2), ("quality", 3))
        ]
        rows.append((name, way, *tied(said), *reached, *like))
    return rows


@bfloat16()
def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    model, bias = opened("emoji-people"), planted_bias()
    folder = where / f"planted-bias-{fingerprint(model)[:12]}-{bias.edit.id[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    rows, shared = [], []
    for name, own, on in (
        ("as it ships", fits(where), nullcontext()),
        ("with the bias", folder, bias.edit.applied(model)),
    ):
        with on:
            at = found(own)
            made = tried(folder, name.replace(" ", "-"), ways(at))
        shared.append(f"{at.shared(SIZES.features)} ({name})")
        rows += lines(made, name, [str(w) for w in made.data["way"].values])
    header = ("model", "way", "women with dark skin", "men with dark skin", "tie", "dark where wanted, women",
              "men", "kept", "kernel distance")  # fmt: skip
    told = f"Features that are both of gender and of skin, of the first {SIZES.features} of each class: "
    write(PAGE, "planted", f"{table(header, rows)}\n\n{told}{', '.join(shared)}.")


if __name__ == "__main__":
    main()
