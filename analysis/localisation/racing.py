"""Stop sampling places that are clearly out: the top of a sweep for fewer runs, at a stated error rate.

A Hoeffding race (Maron & Moore 1994) with the crossed t intervals of ``denoscope.analysis.intervals`` in
place of Hoeffding's. Seeds come in rounds that double; after each, a place is dropped when it is below the
k-th best one by more than chance allows. The comparison is paired, seed by seed, and its level is divided by
the number of places and rounds (Bonferroni), so that a place of the true top k is dropped with a probability
of ``error`` at most, as far as t intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import panel, table
from ...models.progress import Progress, showing
from ...models.site import Site
from ..intervals import interval
from ..scores import UNITS, Scores

Score = Callable[[Sequence[Site], Sequence[int]], Scores]
"""Scores some sites with some seeds: one call of a localisation method."""


@dataclass(frozen=True, eq=False)
class Race:
    """What is left of a race.

    Args:
        places: a table of all sites, the best first: ``mean`` with the seeds it had, ``seeds``, and the round
            in which it was ``dropped`` (NaN: it was not).
        scores: of the sites that were left, with all seeds that were run.
        top: the k best.
        runs: how many times a site was scored with a seed.
        full_runs: how many times a sweep of all would have.
    """

    places: pd.DataFrame
    scores: Scores
    top: tuple[Site, ...]
    runs: int
    full_runs: int

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        spared = 1 - self.runs / self.full_runs
        best = ", ".join(map(str, self.top))
        return f"Race({best}; {self.runs} of {self.full_runs} runs, {spared:.0%} spared)"

    def to_frame(self) -> pd.DataFrame:
        """Return the table of all sites."""
        return self.places

    def plot(self) -> Figure:
        """Return bars of all sites, the best first, ``analysis.plots.effect_bars``.

        Those that were left have the interval of all their seeds.
        """
        left = self.scores.interval().to_dataframe()[["low", "high"]]
        frame = self.places.join(left).rename_axis("measure").reset_index()
        ends = frame["dropped"].isna().map({True: "left", False: "dropped"})
        return figure("effect_bars", frame.assign(when=ends))

    def _repr_html_(self) -> str:
        columns = [str(self.places.index.name), *self.places.columns]
        return panel(repr(self), table(columns, self.places.itertuples()))


@checked
def race(
    score: Score,
    sites: Sequence[Site | str],
    *,
    seeds: Sequence[int],
    k: int = 3,
    error: float = 0.05,
    first: int = 4,
    progress: Progress | None = None,
) -> Race:
    """Return the k best sites, without running all of them with all seeds.

    ``race(lambda some, seeds: trace_denoiser(model, prompts, "cat", sites=some, seeds=seeds,
    metric=metric).indirect_effect, sites, seeds=range(32))``. What a method runs once for each seed, whatever
    the sites (clean and corrupted runs), is never run twice.

    Args:
        score: scores sites with seeds; higher is better; one number for each site and repetition.
        sites: all that take part.
        seeds: at most these.
        k: how many are wanted.
        error: the probability that one of the true top k is dropped, at most.
        first: seeds of the first round; each later one doubles what there is.
        progress: called with (done, total, what).

    Raises:
        ValueError: for as many sites as are wanted or fewer, fewer than two seeds in the first round, an
            error rate that is none, and scores over more than sites.
    """
    places = [Site(str(s)) for s in sites]
    rounds = _rounds(len(places), list(seeds), k, error, first)
    level = 1 - 2 * error / (len(places) * len(rounds))
    alive, kept, dropped = places, dict[Site, xr.DataArray](), dict[Site, int]()
    done = 0
    with showing(progress) as show:
        for i, some in enumerate(rounds):
            new = _checked(score(alive, some), alive)
            for site in alive:
                own = new.sel(site=str(site), drop=True)
                kept[site] = xr.concat([kept[site], own], "seed") if site in kept else own
            done += len(some) * len(alive)
            show(i + 1, len(rounds), "rounds, of places that are left")
            out = _out(kept, alive, k, level)
            dropped |= dict.fromkeys(out, i)
            alive = [site for site in alive if site not in out]
            if len(alive) == k:
                break
    means = {site: float(kept[site].mean()) for site in places}
    rows = [(str(s), means[s], kept[s].sizes["seed"], dropped.get(s, math.nan)) for s in places]
    table_ = pd.DataFrame(rows, columns=["site", "mean", "seeds", "dropped"]).set_index("site")
    left = xr.concat([kept[s] for s in alive], pd.Index([str(s) for s in alive], name="site"))
    top = tuple(sorted(alive, key=lambda s: -means[s])[:k])
    order = table_.sort_values("mean", ascending=False, kind="stable")
    return Race(order, Scores(left), top, done, len(places) * sum(map(len, rounds)))


def _rounds(places: int, seeds: list[int], k: int, error: float, first: int) -> list[list[int]]:
    """The seeds of each round: ``first``, then as many as there were before."""
    if not 0 < k < places:
        raise UsageError(f"k is {k} of {places} sites; there is a race for 1 to {places - 1}")
    if not 2 <= first <= len(seeds) or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"first is {first} of the seeds {seeds}; give at least 2, and no more than there are "
            "different seeds"
        )
    if not 0 < error < 1:
        raise UsageError(f"error is {error}; it is a probability above 0 and below 1, like 0.05")
    ends = [first]
    while ends[-1] < len(seeds):
        ends.append(min(2 * ends[-1], len(seeds)))
    return [seeds[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _out(kept: dict[Site, xr.DataArray], alive: Sequence[Site], k: int, level: float) -> set[Site]:
    """Sites that are below the k-th best by more than chance allows."""
    ranked = sorted(alive, key=lambda s: -float(kept[s].mean()))
    bar, out = kept[ranked[k - 1]], set[Site]()
    for site in ranked[k:]:
        gap = bar - kept[site]
        if float(interval(gap, [d for d in UNITS if d in gap.dims], level)["low"]) > 0:
            out.add(site)
    return out


def _checked(scores: Scores, sites: Sequence[Site]) -> xr.DataArray:
    values = scores.values
    given = [str(s) for s in values["site"].values] if "site" in values.dims else []
    if scores.places != ["site"] or given != [str(s) for s in sites] or "seed" not in values.dims:
        raise UsageError(
            f"score gave scores over {dict(values.sizes)} for {len(sites)} sites; a race is over sites "
            "alone, with seeds: give them in the order asked for, without windows, heads or tokens"
        )
    return values
