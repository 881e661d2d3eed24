"""What a model paints when nothing is asked: pictures of prompts, painted and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, TypeAlias, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from ...models.arguments import batches, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError, UsageError
from ...models.html import frame_table, panel
from ...models.progress import Progress, showing
from ...models.run.settings import SamplingOptions
from ...models.suggest import near
from ...probes.trace import trace
from ..intervals import proportion
from ..mediation.runs import check_each_once
from ..stored import Stored

Label: TypeAlias = Callable[[Tensor], Sequence[str | None]]
"""Says of pictures [sample, 3, height, width] in 0..1 which attribute each shows; None for none of them."""


@dataclass(frozen=True, eq=False)
class Counts(Stored):
    """Which attribute each picture shows.

    Args:
        data: ``shown`` [subject, attribute, seed], 1 where it is seen; ``prompt`` [subject].
    """

    needed: ClassVar[frozenset[str]] = frozenset({"shown", "prompt"})

    def __repr__(self) -> str:
        shares = ", ".join(f"{a} {float(v):.0%}" for a, v in zip(self.shown["attribute"].values,
                           self.shown.mean(["subject", "seed"]), strict=True))  # fmt: skip
        sizes = self.shown.sizes
        return f"Counts({sizes['subject']} subjects, {sizes['seed']} seeds: {shares})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def shown(self) -> xr.DataArray:
        """Ones and zeros [subject, attribute, seed]."""
        return self.data["shown"]

    @checked
    def lean(self, first: str, second: str) -> xr.DataArray:
        """Return 1 where the first attribute is seen, -1 where the second is, else 0 [subject, seed].

        Raises:
            LookupError: for attributes that were not counted.
        """
        check_attributes([first, second], self.shown["attribute"].values)
        a, b = (self.shown.sel(attribute=name, drop=True) for name in (first, second))
        return a - b

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of shares, with Wilson's intervals: subject, attribute, mean, low, high.

        Args:
            level: how often such intervals hold the true share over seeds.
        """
        found = proportion(self.shown.drop_vars("prompt", errors="ignore"), ["seed"], level)
        return found.to_dataframe().reset_index()[["subject", "attribute", "mean", "low", "high"]]

    def plot(self) -> Figure:
        """Return a figure of the shares, subject by subject, ``analysis.plots.effect_bars``."""
        frame = self.to_frame()
        return figure("effect_bars", frame.rename(columns={"subject": "measure", "attribute": "when"}))


@checked
def count_labels(
    model: Model,
    prompts: Mapping[str, str],
    label: Label,
    attributes: Sequence[str],
    *,
    seeds: Sequence[int],
    batch: int = 16,
    progress: Progress | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Counts:
    """Paint each prompt with each seed, and count which attribute is seen.

    Args:
        model: an opened model.
        prompts: by subject: ``{"firefighter": "a photo of a firefighter"}``.
        label: says of pictures what each shows, as in ``balance``; what is none of ``attributes`` counts as
            none of them. A judge's: ``lambda x: [labels[i] for i in judge.probabilities(x, ...).argmax(1)]``.
        attributes: what is counted.
        seeds: each prompt is painted with each, so that two counts of one model can be paired by seed.
        batch: pictures at once.
        progress: called with (done, total, what); without it a bar comes by itself.
        **sampling: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Raises:
        ValueError: for no prompts or attributes, a seed twice, and labels that are not one for each picture.
    """
    if not prompts or not attributes:
        raise UsageError(
            f"prompts is {dict(prompts)!r}, attributes {list(attributes)!r}; give at least one of each: "
            '{"cook": "a photo of a cook"}, ["man", "woman"]'
        )
    check_each_once("seeds", seeds)
    check_each_once("attributes", attributes)
    cells, said = list(product(prompts, seeds)), []
    with showing(progress) as show:
        for some in batches(len(cells), batch):
            run = trace(model, [prompts[p] for p, _ in cells[some]], seeds=[s for _, s in cells[some]],
                        progress=show, **sampling)  # fmt: skip
            said += labelled(label, run.images)
    shown = np.array([[name == a for name in said] for a in attributes], dtype=np.float64)
    dims, size = ("subject", "attribute", "seed"), (len(attributes), len(prompts), len(seeds))
    coords = {"subject": list(prompts), "attribute": list(attributes), "seed": list(seeds),
              "prompt": ("subject", list(prompts.values()))}  # fmt: skip
    return Counts(xr.Dataset({"shown": (dims, shown.reshape(size).swapaxes(0, 1))}, coords))


def labelled(label: Label, images: Tensor) -> list[str | None]:
    """Return what a label says of pictures.

    Raises:
        ValueError: if it does not say one thing of each.
    """
    said = list(label(images))
    if len(said) != len(images):
        raise UsageError(f"label gave {len(said)} answers for {len(images)} pictures; give one for each")
    return said


def check_attributes(asked: Sequence[str], known: Iterable[Any]) -> None:
    """Raise LookupError for an attribute that there is not."""
    for name in asked:
        if name not in list(known):
            raise NotFoundError(f"there is no attribute {name!r}; {near(name, map(str, known))}")
