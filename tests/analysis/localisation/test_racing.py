"""The race: the same top places as the full sweep for fewer runs, and the error rate that it states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

import denoscope
from denoscope import Site
from denoscope.analysis import Noise, race, trace_denoiser
from denoscope.analysis.metrics import Outcome
from denoscope.analysis.scores import Scores
from denoscope.models.synthetic.tiny import tiny_sd

SITES = [Site(f"unet/up.{i}.attn.0.0/cross_attn.out") for i in range(30)]


class Study:
    """Sites of known effects, with noise of each seed that they share, and noise of their own."""

    def __init__(self, means: Sequence[float], number: int) -> None:
        rng = np.random.default_rng(number)
        shared = rng.normal(0, 1.0, (1, 32))
        self.values = np.asarray(means)[:, None] + shared + rng.normal(0, 0.3, (len(means), 32))
        self.runs = 0

    def __call__(self, sites: Sequence[Site], seeds: Sequence[int]) -> Scores:
        self.runs += len(sites) * len(seeds)
        rows = self.values[[SITES.index(s) for s in sites]][:, list(seeds)]
        coords = {"site": list(map(str, sites)), "seed": list(seeds)}
        return Scores(xr.DataArray(rows, coords, ("site", "seed")))

    def full(self, k: int) -> set[Site]:
        return {SITES[i] for i in np.argsort(-self.values.mean(1))[:k]}


def test_the_top_is_that_of_the_full_sweep_for_fewer_runs() -> None:
    """Twenty studies: three sites that matter, others with less and less."""
    means = [1.0, 0.9, 0.8, *np.linspace(0.2, -0.2, 27)]
    right = runs = 0
    for number in range(20):
        study = Study(means, number)
        found = race(study, SITES, seeds=range(32), k=3)
        right += set(found.top) == study.full(3)
        runs += found.runs
        assert found.runs == study.runs and found.full_runs == 30 * 32
    assert right >= 19
    assert runs < 0.6 * 20 * 30 * 32


@pytest.mark.stress
def test_the_error_rate_is_kept_where_all_are_equal() -> None:
    """No site is better, so that every drop of the first, which counts as the true best, is an error."""
    wrong = 0
    for number in range(60):
        table = race(Study([0.0] * 30, number), SITES, seeds=range(32), k=1).places
        wrong += not np.isnan(table["dropped"][str(SITES[0])])
    assert wrong <= 8  # 3 expected at most; more than 8 would come by chance once in 100


def test_dropped_sites_are_told_and_get_no_more_seeds() -> None:
    found = race(Study([2.0, 1.5, *[0.0] * 28], 0), SITES, seeds=range(32), k=2, first=4)
    assert set(found.top) == set(SITES[:2]) and found.scores.values.sizes["site"] >= 2
    table = found.to_frame()
    assert table["dropped"].isna().sum() == found.scores.values.sizes["site"]
    assert table.loc[str(SITES[9]), "seeds"] < 32 and "spared" in repr(found)
    assert "unet/up.0" in found._repr_html_()


def test_a_race_of_mediation_equals_its_sweep() -> None:
    model = denoscope.load(tiny_sd())
    sites = [str(s) for s in model.sites("unet/**/cross_attn.out")]

    def first_number(outcome: Outcome) -> Any:
        return outcome.latents.flatten(1)[:, 0]

    def score(some: Sequence[Site], seeds: Sequence[int]) -> Scores:
        return trace_denoiser(
            model, ["a red cat"], "cat", sites=some, seeds=seeds, metric=first_number, steps=1,
            guidance=3.0, corruption=Noise(draws=1),
        ).indirect_effect  # fmt: skip

    found, whole = race(score, sites, seeds=range(4), k=1, first=2), score(sites, range(4))
    for site in found.scores.values["site"].values:
        ours, theirs = found.scores.values.sel(site=site), whole.values.sel(site=site)
        seeds = ours["seed"]
        np.testing.assert_allclose(ours, theirs.sel(seed=seeds), atol=2e-5)
    if len(found.scores.values["site"]) > 1:
        assert found.top == tuple(whole.top(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 30}, "k is 30 of 30 sites; there is a race for 1 to 29"),
        ({"first": 1}, "first is 1 of the seeds"),
        ({"seeds": [0, 0, 1, 2]}, "no more than there are different seeds"),
        ({"error": 0.0}, "error is 0.0; it is a probability"),
    ],
)
def test_races_that_cannot_be_run(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        race(Study([0.0] * 30, 0), SITES, **{"seeds": range(8), **settings})
    backwards = Study([0.0] * 30, 0)
    with pytest.raises(ValueError, match="a race is over sites alone"):
        race(lambda sites, seeds: backwards(sites[::-1], seeds), SITES, seeds=range(8))
