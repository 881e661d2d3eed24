"""Information of a prompt: the exact denoiser's truth, the laws of both estimates, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import denoscope
from denoscope.analysis import Information, mutual_information
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny import tiny_ddpm
from denoscope.probes.denoising_errors import error_bank

WHOLE: dict[str, Any] = {"log_snr": (-10, 9), "levels": 40, "draws": 12, "batch": 8192}
"""All levels that count for the exact denoiser."""


@pytest.fixture(scope="module")
def exact() -> Analytic:
    return Analytic(two_by_two(2.0))


@pytest.fixture(scope="module")
def run(tiny: Any) -> Any:
    return denoscope.trace(tiny, ["a red cat"], seeds=[0], steps=2, guidance=1.0)


def within(value: Any, error: Any, truth: Any) -> bool:
    """Within three standard errors."""
    return bool((abs(torch.as_tensor(value) - truth) <= 3 * torch.as_tensor(error)).all())


def test_the_standard_estimate_is_the_log_ratio_of_densities_on_each_picture(exact: Analytic) -> None:
    circles, squares = (exact.denoiser.draw(3, 1, {"shape": s}) for s in ("circle", "square"))
    x = torch.cat([circles, squares])  # of a square, "circle" is misleading: below 0
    truth = exact.denoiser.log_prob(x, 0.0, [{"shape": "circle"}] * 6) - exact.denoiser.log_prob(x)
    found = mutual_information(exact, x, "circle", **WHOLE)
    assert within(found.nats.values, found.stderr.values, truth)
    assert (truth[:3] > 0.6).all() and (truth[3:] < -1).all() and (found.stderr < 0.7).all()
    assert float(found.nats[3:].max()) < 0 < float(found.nats[:3].min())


def test_given_more_it_is_the_conditional_one(exact: Analytic) -> None:
    x = exact.denoiser.draw(3, 2, {"shape": "circle", "colour": "red"})
    d = exact.denoiser
    both, red = [{"shape": "circle", "colour": "red"}] * 3, [{"colour": "red"}] * 3
    truth = d.log_prob(x, 0.0, both) - d.log_prob(x, 0.0, red)
    found = mutual_information(exact, x, ["red circle"] * 3, given="red", **WHOLE)
    assert within(found.nats.values, found.stderr.values, truth)
    assert found.to_frame()["given"].tolist() == ["red"] * 3


@pytest.mark.stress
def test_the_orthogonal_estimate_is_right_in_the_mean_over_pictures() -> None:
    """Of one picture it is another number; the mean over pictures of the prompt is the information."""
    model, circle, n = Analytic(two_by_two(1.0)), {"shape": "circle"}, 200
    many = model.denoiser.draw(20_000, 0, circle)
    truth = model.denoiser.log_prob(many, 0.0, [circle] * len(many)) - model.denoiser.log_prob(many)
    x, how = model.denoiser.draw(n, 3, circle), {**WHOLE, "levels": 24, "draws": 1}
    found = mutual_information(model, x, "circle", estimator="orthogonal", **how).nats.values
    assert found.min() >= 0
    assert within(found.mean(), found.std(ddof=1) / n**0.5, truth.mean())


def test_the_chain_rule_is_exact_with_shared_noise(exact: Analytic) -> None:
    x = exact.denoiser.draw(2, 4, {"shape": "circle", "colour": "red"})
    how: dict[str, Any] = {"levels": 6}
    whole = mutual_information(exact, x, "red circle", **how)
    first = mutual_information(exact, x, "circle", **how)
    second = mutual_information(exact, x, "red circle", given="circle", **how)
    assert (first.nats + second.nats).values == pytest.approx(whole.nats.values, abs=1e-9)
    assert (first.map + second.map).values == pytest.approx(whole.map.values, abs=1e-9)


@pytest.mark.parametrize("estimator", ["standard", "orthogonal"])
def test_laws_of_both_estimates(tiny: Any, run: Any, estimator: Any) -> None:
    how: dict[str, Any] = {"levels": 4, "estimator": estimator}
    there = mutual_information(tiny, run, "a red cat", given="a cat", **how)
    back = mutual_information(tiny, run, "a cat", given="a red cat", **how)
    sign = 1 if estimator == "orthogonal" else -1
    assert back.nats.values == pytest.approx(sign * there.nats.values, rel=1e-6)
    same = mutual_information(tiny, run, "a red cat", given="a red cat", **how)
    assert float(abs(same.nats).max()) == 0 == float(abs(same.map).max())
    assert there.map.sum(("y", "x")).values == pytest.approx(there.nats.values, abs=1e-9)
    width = there.data.attrs["width"]
    assert there.data["density"].sum("level").values * width == pytest.approx(there.nats.values)
    if estimator == "orthogonal":
        assert float(there.nats.min()) > 0 and float(there.map.min()) >= 0


def test_both_estimates_and_the_weights_are_what_a_bank_says(tiny: Any, run: Any) -> None:
    bank = error_bank(tiny, run, {"p": "a red cat", "g": ""}, pairs=[("p", "g")], levels=4)
    for estimator in ("standard", "orthogonal"):
        found = mutual_information(tiny, run, "a red cat", estimator=estimator, levels=4)
        value, error = bank.integral(bank.densities("p", "g", estimator))
        assert float(found.nats[0]) == float(value[0]) and float(found.stderr[0]) == float(error[0])
        assert torch.equal(torch.tensor(found.v_map.values), bank.map("p", "g", estimator, "v"))


def test_the_map_finds_the_coordinate_that_the_word_speaks_of(exact: Analytic) -> None:
    """Planted: shape moves the first coordinate, colour the second."""
    x = exact.denoiser.draw(2, 5, {"shape": "circle", "colour": "red"})
    for word, at in (("circle", 0), ("red", 1)):
        for estimator in ("standard", "orthogonal"):
            found = mutual_information(exact, x, word, estimator=estimator, levels=6)
            for where in (found.map, found.v_map):
                share = abs(where).isel(y=0, x=at) / abs(where).sum(("y", "x"))
                assert float(share.min()) > 0.99


def test_it_is_kept_shown_and_drawn(tiny: Any, run: Any, tmp_path: Path) -> None:
    found = mutual_information(tiny, run.images, "a <b> cat", levels=4, store=tmp_path / "store")
    found.save(tmp_path / "found.zarr")
    again = Information.load(tmp_path / "found.zarr")
    assert again.data.identical(found.data) and again.data.attrs["estimator"] == "standard"
    assert list(found.to_frame().columns) == ["image", "prompt", "given", "nats", "stderr"]
    assert "standard: " in repr(found) and "a &lt;b&gt; cat" in found._repr_html_()
    never = mutual_information(tiny, run, "a cat", levels=4, stderr=1e-9, most_draws=2)
    assert "not reached on 1 images" in repr(never) and "not reached" not in repr(found)
    drawn = found.plot()
    assert len(drawn.data) == 2 and drawn.layout.meta["table"]["rows"][0][1] == pytest.approx(
        float(found.nats[0])
    )
    with pytest.raises(UsageError, match="image is 1; there are 0 to 0"):
        found.plot(image=1)
    with pytest.raises(UsageError, match="give a store written by Information.save"):
        found.data[["nats"]].pipe(lambda d: denoscope.analysis.scores.save_store(d, tmp_path / "other"))
        Information.load(tmp_path / "other")


def test_wrong_arguments_are_told(tiny: Any, run: Any) -> None:
    ddpm = load(tiny_ddpm())
    with pytest.raises(UsageError, match="reads no text"):
        mutual_information(ddpm, torch.rand(1, *ddpm.latent_shape), "a cat")
    with pytest.raises(UsageError, match="'standard' or 'orthogonal'"):
        mutual_information(tiny, run, "a cat", estimator="both")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'prompt' has 2 texts for 1 pictures"):
        mutual_information(tiny, run, ["a cat", "a dog"])
    with pytest.raises(UsageError, match="none at all"):
        mutual_information(tiny, torch.zeros(0, 3, 16, 16), "a cat")
    with pytest.raises(TypeError, match="levels is"):
        mutual_information(tiny, run, "a cat", levels="many")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="is no attribute value"):
        mutual_information(Analytic(two_by_two()), torch.zeros(1, 2), "cirle")
    with pytest.raises(UsageError, match=r"points are \(1, 3\)"):
        mutual_information(Analytic(two_by_two()), torch.zeros(1, 3), "circle")
