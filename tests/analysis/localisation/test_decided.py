"""Insertion and removal: their ends are the pure runs, and times that were planted are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from denoscope import Intervention, When, load, trace
from denoscope.analysis import Decision, Scores, decided
from denoscope.analysis.localisation.decision import _half
from denoscope.analysis.metrics import Outcome, latent_distance
from denoscope.models.errors import UsageError
from denoscope.models.run.sampling import Sampling
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny_families import tiny_pixart_alpha, tiny_sdxl
from denoscope.probes.intervene import intervening

A, B, STEPS = "a cat", "a red cat", 4
ROUNDING = 2e-5  # kernels round differently in batches of other sizes


def height(outcome: Outcome) -> Tensor:
    """A linear metric that sees every latent."""
    weights = torch.randn(outcome.latents[0].numel(), generator=torch.Generator().manual_seed(9))
    return outcome.latents.flatten(1).float() @ weights


def switched(model: Any, first: str, then: str, k: int, seed: int, **settings: Any) -> Tensor:
    """One run after another, by hand."""
    x = model.start([seed], Sampling(steps=STEPS))
    if k:
        for state in model.sample([first], seeds=[seed], steps=STEPS, **settings):
            x = state.sampler_state()
            if state.step.index + 1 == k:
                break
    if k < STEPS:
        *_, state = model.sample([then], seeds=[seed], start=x, **settings)
        return state.latents[0]
    return state.latents[0]


@pytest.mark.parametrize(
    "family", [None, pytest.param(tiny_sdxl, marks=pytest.mark.stress), tiny_pixart_alpha]
)
def test_every_switch_is_the_run_made_by_hand(tiny: Any, family: Any) -> None:
    model = load(family()) if family else tiny
    settings: dict[str, Any] = {"guidance": 3.0, "negative": "blue"}
    kept: list[Tensor] = []

    def keep(outcome: Outcome) -> Tensor:
        kept.append(outcome.latents)
        assert [p.text for p in outcome.prompts] == [B]
        return height(outcome)

    with torch.no_grad():
        found = decided(model, A, B, seeds=[3, 5], metric=keep, steps=STEPS, batch=1, **settings)
        ways = [(a, b, k, s) for a, b in ((A, B), (B, A)) for k in range(STEPS + 1) for s in (3, 5)]
        want = torch.stack([switched(model, *way, **settings) for way in ways])
    made = torch.cat(kept)
    assert torch.equal(made, want)
    assert not torch.equal(made[0], made[4])
    whole = decided(model, A, B, seeds=[3, 5], metric=height, steps=STEPS, **settings).data
    np.testing.assert_allclose(whole["score"], found.data["score"], rtol=1e-3, atol=1e-3)
    assert found.rows == 2 * 2 * STEPS * (STEPS + 1)
    assert bool(found.warning) == (family is tiny_pixart_alpha)
    if found.warning:
        assert "DPMSolverMultistepScheduler carries outputs" in repr(found)


def test_the_ends_are_the_plain_runs_to_the_bit(tiny: Any) -> None:
    kept: list[Tensor] = []

    def keep(outcome: Outcome) -> Tensor:
        kept.append(outcome.latents)
        return height(outcome)

    decided(tiny, A, B, seeds=[0], metric=keep, steps=3, guidance=2.0, batch=1)
    plain = [trace(tiny, [p], seeds=[0], steps=3, guidance=2.0).latents for p in (A, B)]
    insertion, removal = kept[:4], kept[4:]
    assert torch.equal(insertion[0], plain[1]) and torch.equal(insertion[-1], plain[0])
    assert torch.equal(removal[0], plain[0]) and torch.equal(removal[-1], plain[1])


@pytest.mark.stress
def test_the_same_prompt_twice_is_flat_and_has_no_time(tiny: Any) -> None:
    found = decided(tiny, A, A, seeds=[0, 1], metric=height, steps=3)
    assert float(np.ptp(found.data["score"].values, axis=(0, 1)).max()) == 0
    assert bool((found.data["nearness"] == 0.5).all())
    assert found.times()["step"].isna().all() and found.times()["low"].isna().all()
    assert found.rows == 2 * 3 * 2
    assert "Decision(a cat;" in found._repr_html_()


def test_the_negative_prompt_stays(tiny: Any) -> None:
    read: list[list[str]] = []

    def watch(x: Tensor, context: Any) -> None:
        read.append([p.text for p in context.prompts])

    with intervening(tiny, Intervention(tiny.input_site, watch, When(branch="uncond"))):
        decided(tiny, A, B, seeds=[0], metric=height, steps=3, guidance=2.0, negative="blue")
    assert {text for texts in read for text in texts} == {"blue"}


class Planted(Analytic):
    """The prompt counts at one step alone: before and after it nothing is read."""

    at: int = 2

    def predict(self, x: Tensor, step: Any, prompts: Any) -> Tensor:
        first = step if not isinstance(step, list) else step[0]
        here = first.index == self.at
        return super().predict(x, step, [p if here else replace(p, text="") for p in prompts])


@pytest.mark.parametrize("at", [1, 3])
def test_a_planted_step_is_when_it_opens_and_locks(at: int) -> None:
    model = Planted(two_by_two())
    model.at = at
    found = decided(model, "red", "blue", seeds=[0, 1, 2], metric=lambda o: o.latents[:, 1], steps=5)
    times = found.times(n_resamples=20).set_index("time")["step"]
    assert times["open"] == times["lock"] == at + 0.5  # between the switch before the step and the one after
    assert times["hysteresis"] == 0
    assert (found.changes()["changes more than once"] == 0).all()


def test_a_mixture_locks_where_its_posterior_does() -> None:
    """From a point, the flow of no prompt ends on the side that the exact posterior prefers there."""
    model = Analytic(two_by_two(distance=4.0, spread=0.5))
    seeds = list(range(12))
    red = lambda o: (o.latents[:, 1] < 0).double()  # noqa: E731
    found = decided(model, "", "red", seeds=seeds, metric=red, steps=20)
    share = []
    for state in model.sample(["red"] * 12, seeds=seeds, steps=20):
        if state.step.index:
            x = state.model_input * (1 + state.step.sigma**2) ** 0.5
            likes = model.denoiser.posterior(x, "colour", state.step.sigma)
            share.append(float((likes[:, 0] > 0.5).double().mean()))
    curve = found.data["score"].sel(direction="removal").mean(("prompt", "seed")).values
    assert curve[1:-1].tolist() == pytest.approx(share)
    assert 0.2 < curve[0] < 0.8 and curve[-1] == 1 and len(set(share)) > 2
    lock = found.times(n_resamples=50).set_index("time").loc["lock"]
    assert lock["low"] <= lock["step"] <= lock["high"]
    assert lock["log_snr"] == pytest.approx(-2 * np.log(lock["sigma"]))


def made(levels: list[list[float]], **attrs: Any) -> Decision:
    """Curves by hand: [direction, switch] or [direction, switch, seed]."""
    data = np.asarray(levels, float)
    data = data[..., None] if data.ndim == 2 else data
    n = data.shape[1]
    dims = ("direction", "switch", "prompt", "seed")
    coords = {"direction": ["insertion", "removal"], "switch": range(n), "prompt": ["p"],
              "concept": ("prompt", ["c"]), "sigma": ("switch", np.geomspace(8, 0.5, n)),
              "seed": range(data.shape[2]),
              "log_snr": ("switch", -2 * np.log(np.geomspace(8, 0.5, n)))}  # fmt: skip
    values = (dims, data[:, :, None])
    return Decision(xr.Dataset({"score": values, "nearness": values}, coords, {"rows": 1, **attrs}))


def test_times_of_curves_by_hand() -> None:
    found = made([[1, 1, 1, 0.88, 0, 0], [0, 0, 0.12, 0.5, 0.62, 1]])
    frame = found.times().set_index("time")
    assert frame.loc["open", "step"] == pytest.approx(3 + 0.38 / 0.88)
    assert frame.loc["lock", "step"] == pytest.approx(3)
    assert frame.loc["hysteresis", "step"] == pytest.approx(-0.38 / 0.88)
    assert frame["low"].isna().all()  # a single run
    upside_down = made([[0, 0, 0, 0.12, 1, 1], [1, 1, 0.88, 0.5, 0.38, 0]])  # as a distance falls
    assert upside_down.times()["step"].tolist() == pytest.approx(found.times()["step"].tolist())


def test_runs_that_go_back_are_counted_and_pooled() -> None:
    paths = np.array([[1, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0]], float).T
    found = made([paths.tolist(), (1 - paths).tolist()])  # type: ignore[list-item]
    assert found.changes()["changes more than once"].tolist() == [0.5, 0.5]
    assert found.times(of="yes", n_resamples=10)["step"].tolist() == pytest.approx([2.5, 2.5, 0])


@pytest.mark.parametrize("seed", range(5))
def test_the_monotone_fit_crosses_where_scikit_learn_s_does(seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=9).cumsum()
    y = np.r_[1, np.clip(y, 0, 1), 0]
    fit = IsotonicRegression(increasing=False).fit_transform(np.arange(11), y)
    t = _half(np.arange(11.0), y)
    assert np.interp(t, np.arange(11), fit) == pytest.approx(0.5)
    falling = np.linspace(1, 0, 11)
    assert _half(np.arange(11.0), falling) == pytest.approx(5)  # monotone already: its own fit


@pytest.mark.stress
def test_pairs_of_one_concept_share_a_curve(tiny: Any) -> None:
    pairs = ["a cat", "a dog"], ["a red cat", "a red dog"]
    found = decided(
        tiny, *pairs, seeds=[0, 1], metric=latent_distance(), concepts=["red", "red"], steps=3, stride=2
    )
    assert found.curves().sizes == {"concept": 1, "direction": 2, "switch": 3}
    assert found.data["switch"].values.tolist() == [0, 2, 3]
    each = decided(tiny, *pairs, seeds=[0, 1], metric=[height, latent_distance()], steps=3, stride=2)
    assert each.concepts == pairs[1]
    assert set(each.to_frame()["concept"]) == set(pairs[1])
    assert len(each.plot().data) == 4 and each.plot().layout.meta["table"]["rows"]


def test_mistakes_are_told(tiny: Any) -> None:
    ask: dict[str, Any] = {"seeds": [0], "metric": height, "steps": 2}
    with pytest.raises(ValueError, match="2 prompts without the concept but 1 with it"):
        decided(tiny, [A, B], B, **ask)
    with pytest.raises(ValueError, match="1 pairs of prompts but 2 metrics and 1 concepts"):
        decided(tiny, A, B, **{**ask, "metric": [height, height]})
    with pytest.raises(ValueError, match="stride is 0"):
        decided(tiny, A, B, stride=0, **ask)
    with pytest.raises(ValueError, match="more than once"):
        decided(tiny, A, B, **{**ask, "seeds": [1, 1]})
    with pytest.raises(ValueError, match="share one negative text"):
        decided(tiny, A, B, negative=["red"], **ask)
    with pytest.raises(ValueError, match="of is 'scores'; it is 'score', 'yes' or 'nearness'"):
        made([[1, 0], [0, 1]]).curves(of="scores")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_resamples is 0"):
        made([[1, 0], [0, 1]]).times(n_resamples=0)


def test_a_saved_decision_is_the_same(tiny: Any, tmp_path: Path) -> None:
    found = decided(tiny, "a cat", "a red cat", seeds=[0, 1], steps=2, metric=latent_distance())
    found.save(tmp_path / "found")
    again = Decision.load(tmp_path / "found")
    xr.testing.assert_identical(again.curves(), found.curves())
    assert again.concepts == found.concepts and again.rows == found.rows and again.warning == found.warning
    Scores(found.data["score"].rename(direction="site")).save(tmp_path / "scores")
    with pytest.raises(UsageError, match="written by Decision.save"):
        Decision.load(tmp_path / "scores")
