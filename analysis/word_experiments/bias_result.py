"""What words tell of pictures of a subject, beside how often the attribute is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError, UsageError
from ...models.html import frame_table, panel
from ...models.suggest import near
from ..intervals import interval
from ..stored import Stored
from .counting import Counts, check_attributes
from .ranking import resampled_correlation

MEASURES = ("redundancy", "redundancy by cell", "conditional information")
Shares: TypeAlias = Counts | Mapping[str, Mapping[str, float]]
"""How often an attribute is seen: counted, or known: ``{"cook": {"woman": 0.4, "man": 0.6}}``."""
LEAST = 3
"""Subjects that an order takes."""


@dataclass(frozen=True, eq=False)
class WordBias(Stored):
    """What the word of an attribute tells of pictures of subjects.

    Args:
        data: ``values`` [pictures, measure, subject, attribute, seed], in nats.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"values", "template", "estimator"})

    def __repr__(self) -> str:
        sizes = self.values.sizes
        return (
            f"WordBias({sizes['subject']} subjects x {', '.join(map(str, self.values['attribute'].values))}; "
            f"{sizes['seed']} seeds; {self.data.attrs['estimator']})"
        )

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def values(self) -> xr.DataArray:
        """Nats [pictures, measure, subject, attribute, seed]."""
        return self.data["values"]

    @checked
    def lean(self, first: str, second: str) -> xr.DataArray:
        """Return how much more the first attribute's word tells [pictures, measure, subject, seed], in nats.

        Of neutral pictures, the conditional information of one less that of the other is log p(picture |
        first, subject) / p(picture | second, subject), in the network's eyes.

        Raises:
            LookupError: for attributes that were not measured.
        """
        check_attributes([first, second], self.values["attribute"].values)
        a, b = (self.values.sel(attribute=name, drop=True) for name in (first, second))
        return a - b

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table: pictures, measure, subject, attribute, mean over seeds with its interval, in nats.

        Args:
            level: how often such intervals hold the true mean over seeds.
        """
        return interval(self.values, ["seed"], level).to_dataframe().reset_index()

    @checked
    def correlations(
        self,
        shares: Shares,
        *,
        contrast: tuple[str, str] | None = None,
        level: float = 0.95,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return how each measure goes with a share, over subjects: Spearman's, with bootstrap intervals.

        Args:
            shares: counted on other seeds; or known. Subjects without a share are left out.
            contrast: two attributes: the difference of their measures against the difference of their
                shares. None is each attribute by itself.
            level: how often such intervals hold the true correlation.
            n_resamples: subjects are drawn so often, with replacement.
            seed: of these draws, the same for all rows.

        Returns:
            A table: pictures, measure, attribute, rho, low, high, subjects (how many). Where all subjects are
            alike in the measure or the share, nothing goes with anything: NaN.

        Raises:
            ValueError: for shares that were counted on pictures of the same seeds and wording, for they would
                be compared with themselves; and fewer than three subjects.
            LookupError: for attributes that were not measured, or have no share.
        """
        rows = []
        for name, measured, counted in self._pairs(shares, contrast):
            for pictures, measure in product(measured["pictures"].values, measured["measure"].values):
                x = measured.sel(pictures=pictures, measure=measure).values
                found = resampled_correlation(x, counted.values, level=level, n_resamples=n_resamples,
                                              seed=seed)  # fmt: skip
                rows.append((str(pictures), str(measure), name, *found, len(x)))
        columns = ["pictures", "measure", "attribute", "rho", "low", "high", "subjects"]
        return pd.DataFrame(rows, columns=columns)

    @checked
    def plot(
        self,
        shares: Counts,
        attribute: str,
        measure: str = "conditional information",
        pictures: str = "neutral",
    ) -> Figure:
        """Return a figure of subjects: a measure across, a counted share upwards, both with intervals.

        ``analysis.plots.measure_and_share``.

        Raises:
            LookupError: for an attribute, a measure or pictures that were not measured.
            ValueError: as ``correlations``.
        """
        self._check(shares)
        for name, value in (("attribute", attribute), ("measure", measure), ("pictures", pictures)):
            known = [str(v) for v in self.values[name].values]
            if value not in known:
                raise NotFoundError(f"{name} is {value!r}; {near(value, known)}")
        told, seen = self.to_frame(), shares.to_frame()
        check_attributes([attribute], list(seen["attribute"]))
        own = told[(told["attribute"] == attribute) & (told["measure"] == measure)
                   & (told["pictures"] == pictures)]  # fmt: skip
        both = own.merge(seen[seen["attribute"] == attribute], on="subject", suffixes=("", " share"))
        return figure("measure_and_share", both, f"{measure} of “{attribute}”, nats",
                      f"share that shows “{attribute}”")  # fmt: skip

    def _pairs(
        self, shares: Shares, contrast: tuple[str, str] | None
    ) -> list[tuple[str, xr.DataArray, xr.DataArray]]:
        """By name, what was measured and what was counted of the same subjects."""
        self._check(shares)
        seen = _shares(shares)
        attributes = [str(a) for a in self.values["attribute"].values]
        check_attributes(contrast or attributes, seen["attribute"].values)
        if contrast is not None:
            if len(set(contrast)) != 2:
                raise UsageError(
                    f"contrast is {contrast!r}; it is two attributes, like {tuple(attributes[:2])}"
                )
            first, second = contrast
            counted = seen.sel(attribute=first) - seen.sel(attribute=second)
            return [_shared(f"{first} - {second}", self.lean(first, second), counted)]
        return [_shared(a, self.values.sel(attribute=a), seen.sel(attribute=a)) for a in attributes]

    def _check(self, shares: Shares) -> None:
        """Raise ValueError for pictures that are the measured ones."""
        if not isinstance(shares, Counts):
            return
        own, others = (set(x["seed"].values.tolist()) for x in (self.values, shares.shown))
        if both := sorted(own & others):
            raise UsageError(
                f"measured and counted on the same seeds, {both[:3]}: a measure is tried on pictures that it "
                f"has not seen; count on others, like range({max(own) + 1}, {max(own) + 1 + len(others)})"
            )


def _shares(shares: Shares) -> xr.DataArray:
    """Shares [subject, attribute]; NaN where there is none."""
    if isinstance(shares, Counts):
        return shares.shown.mean("seed")
    frame = pd.DataFrame({s: dict(a) for s, a in shares.items()}).T
    coords = {"subject": list(frame.index), "attribute": list(frame.columns)}
    return xr.DataArray(frame.to_numpy(float), coords, tuple(coords))


def _shared(
    name: str, measured: xr.DataArray, counted: xr.DataArray
) -> tuple[str, xr.DataArray, xr.DataArray]:
    """Both over the subjects that have a share.

    Raises:
        ValueError: for too few of them.
    """
    known = counted.dropna("subject")["subject"].values.tolist()
    subjects = [s for s in measured["subject"].values.tolist() if s in known]
    if len(subjects) < LEAST:
        raise UsageError(
            f"{len(subjects)} measured subjects have a share of {name!r}; an order takes {LEAST} at least"
        )
    mean = measured.sel(subject=subjects).mean("seed")
    return name, mean, counted.sel(subject=subjects).astype(np.float64)
