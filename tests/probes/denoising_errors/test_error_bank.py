"""One bank of predictions: equal to a plain loop in every family, shared, resumed, stopped where asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope.models.errors import NotFoundError, StateError, UsageError
from denoscope.models.load import load
from denoscope.models.run.prediction import scales
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser, two_by_two
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from denoscope.models.synthetic.tiny_families import (
    tiny_dit,
    tiny_flux,
    tiny_ldm,
    tiny_pixart_alpha,
    tiny_sana,
    tiny_sd3,
    tiny_sdxl,
)
from denoscope.probes.denoising_errors import ErrorBank, error_bank
from denoscope.probes.denoising_errors.strata import Strata, standard_error

TEXTS = {"none": "", "cat": "a cat", "red": "a red cat"}
PAIRS = [("cat", "none"), ("red", "cat")]
MODELS = {
    "epsilon": tiny_sd,
    "v": lambda: tiny_sd(prediction_type="v_prediction"),
    "x0": lambda: tiny_sd(prediction_type="sample"),
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "pixart": tiny_pixart_alpha,
    "sana": tiny_sana,
    "ldm": tiny_ldm,
}


def latents(model: Any, n: int = 1) -> Any:
    """A run of a model, which only its latents are taken of."""
    prompts = ["a cat"] * n if model.conditional else [""] * n
    return denoscope.trace(model, prompts, seeds=range(n), steps=1, guidance=1.0)


def bank_of(model: Any, images: Any, **how: Any) -> ErrorBank:
    return error_bank(model, images, TEXTS, pairs=PAIRS, **{"levels": 4, **how})


def naive(model: Any, clean: Tensor, texts: list[str], how: Strata) -> Tensor:
    """Residuals [draw, level, sign, condition, ...], one row at a time."""
    levels, _ = how.middles(model)
    reads = [(model.encode([t]) if t else model.negative([""])) for t in texts]
    found = []
    for draw in range(how.draws):
        seeds = how.seeds(0, draw, range(len(levels)))
        for level, seed in zip(levels, seeds, strict=True):
            step = model.step_at(log_snr=level)
            for sign in (1, -1):
                eps = sign * model.noise([seed]).double()
                a, s = scales(model.scheduler, step, eps)
                x = a * clean[None].double() + s * eps
                for read in reads:
                    with torch.no_grad():
                        out = model.denoise(x.to(model.dtype), step, read)
                    found.append(model.to_eps(x, out.double(), step) - eps)
    return torch.cat(found).unflatten(0, (how.draws, len(levels), 2, len(texts)))


@pytest.mark.parametrize("name", MODELS)
def test_it_equals_a_plain_loop_for_every_family_and_kind_of_prediction(name: str) -> None:
    model = load(MODELS[name]())
    run = latents(model)
    bank = bank_of(model, run, log_snr=(-3, 3), draws=2)
    r = naive(model, run.latents[0], list(TEXTS.values()), Strata(log_snr=(-3, 3), levels=4, draws=2))
    flat = r.flatten(4)
    gram = torch.einsum("dlsia,dlsja->dlij", flat, flat) / 2
    assert torch.allclose(bank.gram[0], gram, rtol=1e-3, atol=1e-4 * float(gram.max()))
    errors = flat.square().sum(-1).mean((0, 2))
    assert torch.allclose(bank.errors[0], errors, rtol=1e-3)
    for estimator in ("standard", "orthogonal"):
        for informed, base in PAIRS:
            whole, _ = bank.integral(bank.densities(informed, base, estimator))
            assert bank.map(informed, base, estimator).sum((1, 2)) == pytest.approx(whole, abs=1e-8)


def test_pixels_classes_and_networks_without_text() -> None:
    ddpm = load(tiny_ddpm())
    picture = torch.rand(1, *ddpm.latent_shape)
    bank = error_bank(ddpm, picture, {"": ""}, levels=4)
    r = naive(ddpm, 2 * picture[0] - 1, [""], Strata(levels=4))
    assert torch.allclose(bank.errors[0, :, 0], r.flatten(4).square().sum(-1).mean((0, 2, 3)), rtol=1e-3)
    with pytest.raises(UsageError, match="reads no text, so 'a cat' tells it nothing"):
        error_bank(ddpm, picture, TEXTS, levels=4)
    dit = load(tiny_dit())
    classes = error_bank(dit, latents_of_noise(dit), {"none": "", "one": "1"}, levels=4)
    assert classes.errors.shape == (1, 4, 2)


def latents_of_noise(model: Any) -> Any:
    return denoscope.trace(model, ["1"], seeds=[0], steps=1, guidance=1.0)


def test_a_batch_equals_its_parts_and_more_draws_only_add(tiny: Any) -> None:
    run = latents(tiny, 2)
    both = bank_of(tiny, run)
    assert torch.allclose(both.gram[1], bank_of(tiny, run, batch=1).gram[1], rtol=1e-4)
    pictures, second = bank_of(tiny, run.images), bank_of(tiny, run.images[1:], seed=1)
    assert torch.allclose(pictures.gram[1], second.gram[0], rtol=1e-3)  # picture i has seed + i
    more = bank_of(tiny, run, draws=2)
    assert torch.equal(more.gram[0][:1], both.gram[0])
    assert not torch.allclose(more.gram[0][1], both.gram[0][0], rtol=1e-3)


def test_equal_conditions_are_evaluated_once_and_tell_exactly_nothing(tiny: Any) -> None:
    run = latents(tiny)
    texts = {"none": "", "cat": "a cat", "again": "a cat", "read": tiny.encode(["a cat"])[0]}
    bank = error_bank(tiny, run, texts, levels=4, pairs=[("again", "cat"), ("cat", "cat")])
    assert bank.rows == 2 * 4 * 2
    for estimator in ("standard", "orthogonal"):
        assert bank.densities("again", "cat", estimator)[0].abs().max() == 0
        assert bank.map("cat", "cat", estimator).abs().max() == 0
    assert torch.equal(bank.gram[0][..., 1, 0], bank.gram[0][..., 3, 0])


def test_the_weights_integrate_one_and_the_logistic_density(tiny: Any) -> None:
    how = Strata(log_snr=(-5, 7), levels=16)
    levels, width = how.middles(tiny)
    assert width * len(levels) == pytest.approx(12) and levels[0] == pytest.approx(-5 + width / 2)
    model = Analytic(two_by_two())
    a = torch.tensor(Strata(log_snr=(-9.9, 9), levels=40).middles(model)[0]).double()
    wide = 18.9 / 40
    mass = 1 / (1 + math.exp(-9)) - 1 / (1 + math.exp(9.9))
    assert float((a.sigmoid() * (-a).sigmoid()).sum() * wide) == pytest.approx(mass, abs=1e-4)
    bank = bank_of(model_of_points(), points(), levels=5, log_snr=(-4, 1))
    assert float(bank.weights().sum()) == pytest.approx(5)
    expected = 1 + torch.exp(-torch.tensor(bank.log_snr, dtype=torch.float64))
    assert torch.allclose(bank.weights("v"), expected)


def model_of_points() -> Analytic:
    return _Reading(two_by_two(2.0))


def points() -> Tensor:
    return two_by_two(2.0).draw(1, seed=0)


class _Reading(Analytic):
    """The exact denoiser, to which a cat is a circle."""

    def condition(self, text: str) -> dict[str, str]:
        return super().condition({"": "", "a cat": "circle", "a red cat": "red circle"}[text])


def test_it_draws_until_the_standard_error_is_small_enough_and_says_if_it_never_was() -> None:
    model, where = model_of_points(), points()
    few = bank_of(model, where, levels=8, stderr=0.2, batch=512)
    value, error = few.integral(few.densities("cat", "none"))
    assert float(error) <= 0.2 and few.reached == (True,)
    assert 1 < len(few.gram[0]) < 64
    never = bank_of(model, where, levels=8, stderr=1e-9, most_draws=3, batch=512)
    assert len(never.gram[0]) == 3 and never.reached == (False,)
    share = bank_of(model, where, levels=8, relative=0.5, stderr=1e-3, most_draws=40, batch=512)
    for pair in PAIRS:
        value, error = share.integral(share.densities(*pair))
        assert float(error) <= max(1e-3, 0.5 * abs(float(value))) or share.reached == (False,)


def test_a_stopped_call_goes_on_to_the_same_bits(tiny: Any, tmp_path: Path) -> None:
    run = latents(tiny, 2)
    seen = []

    def stop(done: int, total: int, what: str, /) -> None:
        seen.append(what)
        if len(seen) == 3:
            raise KeyboardInterrupt

    how = {"draws": 2, "batch": 6}
    with pytest.raises(KeyboardInterrupt):
        bank_of(tiny, run, store=tmp_path / "bank", progress=stop, **how)
    kept = len(list((tmp_path / "bank").glob("*/unit.json")))
    assert kept == 3
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        real = type(tiny).denoise
        patch.setattr(type(tiny), "denoise", lambda *a, **k: (calls.append(len(a[1])), real(*a, **k))[1])
        again = bank_of(tiny, run, store=tmp_path / "bank", **how)
        assert sum(calls) == again.rows - 3 * 6
        calls.clear()
        bank_of(tiny, run, store=tmp_path / "bank", estimator="orthogonal", **how)
        assert not calls
        bank_of(tiny, run, store=tmp_path / "bank", seed=5, **how)
        assert sum(calls) == again.rows
    plain = bank_of(tiny, run, **how)
    assert all(torch.equal(a, b) for a, b in zip(again.gram, plain.gram, strict=True))
    assert torch.equal(again.maps, plain.maps)


def test_another_model_finds_nothing_of_its_own_in_a_store(tiny: Any, tmp_path: Path) -> None:
    run, other = latents(tiny), load(tiny_sd(seed=1))
    bank_of(tiny, run, store=tmp_path)
    found = bank_of(other, run, store=tmp_path)
    assert torch.equal(found.gram[0], bank_of(other, run).gram[0])


def test_global_random_state_stays_as_it_was(tiny: Any) -> None:
    before = torch.get_rng_state()
    bank_of(tiny, latents(tiny))
    assert torch.equal(torch.get_rng_state(), before)


def test_strata_and_antithetic_pairs_need_fewer_rows_than_independent_draws() -> None:
    """At equal rows, against independent levels and noise (which the conditions share there too)."""
    d = 16
    covs = torch.eye(d, dtype=torch.float64)[None] * torch.tensor([0.25, 4.0])[:, None, None]
    sizes = {"size": ["narrow", "wide"]}
    model = Analytic(AnalyticDenoiser(torch.ones(2).double(), torch.zeros(2, d).double(), covs, sizes))
    where = model.denoiser.draw(1, seed=3, condition={"size": "narrow"})
    texts = {"narrow": "narrow", "wide": "wide"}
    ours = error_bank(model, where, texts, levels=8, draws=60, batch=4096, log_snr=(-5, 5))
    spread = (ours.densities("narrow", "wide", "orthogonal")[0] * ours.width).sum(-1).var()
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(60 * 16, generator=generator, dtype=torch.float64) * 10 - 5
    eps = torch.randn(60 * 16, d, generator=generator, dtype=torch.float64)
    sigma = torch.exp(-a / 2)
    x = where + sigma[:, None] * eps
    narrow, wide = (model.denoiser.eps(x, sigma, [{"size": t}] * len(a)) for t in texts)
    plain = 10 * 0.5 * (narrow - wide).square().sum(-1)
    assert float(plain.unflatten(0, (60, 16)).mean(-1).var()) > 4 * float(spread)


def test_standard_errors_are_right_where_the_usual_ones_count_the_curve_as_noise() -> None:
    """A curve over the levels, and noise that differs between them; 4,000 times."""
    generator = torch.Generator().manual_seed(0)
    for levels, most in ((16, 1.15), (32, 1.05)):
        at = torch.linspace(-3, 3, levels, dtype=torch.float64)
        curve, noise = 5 * torch.exp(-(at**2) / 2), 0.3 * torch.sigmoid(at)
        drawn = curve + noise * torch.randn(4000, 2, levels, generator=generator, dtype=torch.float64)
        true = float(noise.square().sum().sqrt())
        one = float(standard_error(drawn[:, :1]).square().mean().sqrt())
        two = float(standard_error(drawn).square().mean().sqrt())
        usual = float((drawn[:, 0].var(-1) * levels).mean().sqrt())
        assert 0.97 < one / true < most
        assert two / true * math.sqrt(2) == pytest.approx(1, abs=0.03)
        assert usual / true > 4


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"conditions": {}}, UsageError, "conditions is empty"),
    ({"conditions": {"a": ["a cat", "a dog"]}, "pairs": []}, UsageError, "'a' has 2 texts for 1 pictures"),
    ({"pairs": [("red", "cta")]}, NotFoundError, "did you mean 'cat'"),
    ({"batch": 0}, UsageError, "batch is 0"),
    ({"levels": 0}, UsageError, "levels is 0"),
    ({"levels": 3}, UsageError, "one draw at 3 levels tells no standard error; give draws=2"),
    ({"draws": 0}, UsageError, "draws is 0"),
    ({"draws": 2, "most_draws": 1, "stderr": 1.0}, UsageError, "most_draws is 1"),
    ({"draws": 2**70}, UsageError, "draws is 11805"),
    ({"stderr": 0.0}, UsageError, "stderr is 0"),
    ({"relative": math.nan}, UsageError, "relative is nan"),
    ({"stderr": 1.0, "pairs": []}, UsageError, "but of nothing"),
    ({"log_snr": (3, -3)}, UsageError, "it is a range"),
    ({"log_snr": (-20, 3)}, UsageError, "was trained from"),
    ({"estimator": "other"}, UsageError, "'standard' or 'orthogonal'"),
    ({"images": torch.zeros(0, 3, 16, 16)}, UsageError, "none at all"),
    ({"images": torch.zeros(1, 4, 16, 16)}, UsageError, "images are"),
    ({"images": torch.zeros(1, 3, 8, 8)}, UsageError, "by 8 pixels"),
    ({"images": torch.full((1, 3, 16, 16), 2.0)}, UsageError, "0..1"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=lambda v: str(v)[:40])
@pytest.mark.misshapen
def test_wrong_arguments_are_told(
    tiny: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"images": torch.rand(1, 3, 16, 16), "conditions": TEXTS, "pairs": PAIRS, "levels": 4}
    with pytest.raises(error, match=message):
        error_bank(tiny, **{**given, **change})


def test_latents_of_another_model_and_predictions_that_are_no_numbers_are_told(tiny: Any) -> None:
    with pytest.raises(UsageError, match="the run's latents are"):
        bank_of(tiny, latents(load(tiny_flux())))
    broken = load(tiny_sd())
    with torch.no_grad():
        broken.pipe.unet.conv_out.bias.fill_(math.nan)
    with pytest.raises(StateError, match="predicts NaN or infinite values at log_snr"):
        bank_of(broken, latents(tiny))


def test_a_bank_tells_what_it_lacks(tiny: Any) -> None:
    bank = bank_of(tiny, latents(tiny))
    with pytest.raises(NotFoundError, match="no condition 'rde'; did you mean 'red'"):
        bank.densities("rde", "cat")
    with pytest.raises(NotFoundError, match="no maps of .*name it in pairs"):
        bank.map("red", "none")
    with pytest.raises(UsageError, match="'nats' or 'v'"):
        bank.weights("w")  # type: ignore[arg-type]
    assert "1 pictures, 3 conditions, 4 levels, 1 draws; 24 rows" in repr(bank)
