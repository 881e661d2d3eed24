"""Classification by denoising: the exact denoiser's truth, the bank that it reduces, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import denoscope
from denoscope.analysis import Classification, classify
from denoscope.analysis.classification.pruning import survivors
from denoscope.analysis.classification.rows import Rows
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser, two_by_two
from denoscope.models.synthetic.tiny import tiny_ddpm
from denoscope.probes.denoising_errors import Strata, error_bank

CORNERS = ["red circle", "red square", "blue circle", "blue square"]
KINDS = ["one", "two", "three", "four"]


def clouds() -> Analytic:
    """Four kinds of three clouds each, interwoven: their errors differ from noise to noise."""
    generator = torch.Generator().manual_seed(1)
    means = 1.5 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
    covs = 0.04 * torch.eye(2, dtype=torch.float64).expand(12, 2, 2)
    return Analytic(AnalyticDenoiser(torch.ones(12).double(), means, covs, {"kind": KINDS * 3}))


def truth(model: Analytic, x: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """log p(x | prompt) [image, prompt]."""
    d = model.denoiser
    return torch.stack([d.log_prob(x, 0.0, [model.condition(p)] * len(x)) for p in prompts], 1)


@pytest.fixture(scope="module")
def exact() -> Analytic:
    return Analytic(two_by_two(1.5))


@pytest.fixture(scope="module")
def run(tiny: Any) -> Any:
    return denoscope.trace(tiny, ["a red cat", "a dog"], seeds=[0, 1], steps=2, guidance=1.0)


def test_it_chooses_what_bayes_rule_chooses_and_margins_are_log_ratios(exact: Analytic) -> None:
    x = exact.denoiser.draw(20, 0)
    known = truth(exact, x, CORNERS)
    how: dict[str, Any] = {"weights": "nats", "log_snr": (-9.5, 9), "levels": 40, "batch": 1024}
    found = classify(exact, x, CORNERS, **how)
    assert found.chosen == [CORNERS[j] for j in known.argmax(1).tolist()]
    first, second = known.topk(2).values.T
    assert found.margin.values == pytest.approx((first - second).numpy(), abs=0.05)
    labels = [CORNERS[j] for j in known.argmax(1).tolist()]
    row = found.accuracy(labels).iloc[0]
    assert row[["accuracy", "images", "ties", "chance"]].tolist() == [1, 20, 0, 0.25]


@pytest.mark.parametrize("weights", ["nats", "v"])
def test_it_is_a_reduction_of_the_bank(tiny: Any, run: Any, weights: Any) -> None:
    texts = ["a red cat", "a cat", "a dog"]
    found = classify(tiny, run, texts, weights=weights, levels=4, draws=3)
    bank = error_bank(tiny, run, {t: t for t in texts}, levels=4, draws=3)
    expected = 0.5 * torch.einsum("l,plc->pc", bank.weights(weights), bank.errors)
    assert found.scores.values == pytest.approx(expected.numpy(), rel=1e-5)
    assert found.chosen == [texts[j] for j in expected.argmin(1).tolist()]
    for i in range(2):
        first, second = found.chosen[i], str(found.data["second"].values[i])
        margin, error = bank.integral(bank.densities(first, second), weights)
        assert float(found.margin[i]) == pytest.approx(float(margin[i]), rel=1e-4)
        assert float(found.stderr[i]) == pytest.approx(float(error[i]), rel=1e-4)
    assert found.rows == found.full_rows == bank.rows
    assert found.to_frame()["rows"].tolist() == [72, 72]


def test_a_picture_is_as_if_alone_and_prompts_may_come_in_any_order(tiny: Any, run: Any) -> None:
    texts = ["a red cat", "a dog", "a house"]
    both = classify(tiny, run.images, texts, levels=4)
    second = classify(tiny, run.images[1:], texts[::-1], levels=4, seed=1)
    turned = second.scores.sel(prompt=texts).values
    assert turned[0] == pytest.approx(both.scores.values[1], rel=1e-4)
    given = classify(tiny, run.images, texts, levels=4, weights=[3.0] * 4)
    plain = classify(tiny, run.images, texts, levels=4, weights="nats")
    assert (given.scores / plain.scores).values == pytest.approx(3 / plain.data.attrs["width"])
    assert given.chosen == plain.chosen and given.data.attrs["level_weights"] == "given"


@pytest.mark.stress
def test_pruning_spares_rows_and_keeps_the_choice() -> None:
    model = clouds()
    x, how = model.denoiser.draw(25, 2), {"levels": 4, "draws": 6, "weights": "nats", "batch": 256}
    full, pruned = classify(model, x, KINDS, **how), classify(model, x, KINDS, prune=0.1, **how)
    same = sum(a == b for a, b in zip(full.chosen, pruned.chosen, strict=True))
    assert same >= 23 and pruned.full_rows == full.rows and pruned.rows < 0.8 * full.rows
    draws = pruned.data["draws"].values
    assert pruned.rows == 8 * draws.sum() and draws.min() >= 2
    assert "% spared" in repr(pruned) and "spared" not in repr(full)
    assert (pruned.margin >= 0).all()
    whole = draws == 6
    assert pruned.scores.values[whole] == pytest.approx(full.scores.values[whole])


def raced(errors: torch.Tensor, rate: float) -> list[int]:
    """Which prompts are left in the end, as ``classify`` drops them, of errors [draw, level, prompt]."""
    draws, _, prompts = errors.shape
    live = list(range(prompts))
    for look in range(2, draws):
        if len(live) > 1:
            left = survivors(errors[:look][..., live], rate / ((prompts - 1) * (draws - 2)))
            live = [j for j, stays in zip(live, left.tolist(), strict=True) if stays]
    return live


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0])
def test_pruning_keeps_its_rate_on_the_exact_denoiser(scale: float) -> None:
    """By simulation: draws are as good in any order, so few pictures give many races; also close ones.

    Differences of prompts are made smaller, and so the races harder, by their means over draws alone.
    """
    model, rate, races = clouds(), 0.1, 20
    rows = Rows.of(model, KINDS, Strata(levels=4, draws=8), batch=256, store=None)
    lost, generator = list[bool](), torch.Generator().manual_seed(3)
    for i, x in enumerate(model.denoiser.draw(8, 4)):
        errors = rows.errors(x, i, lambda *_: None, torch.ones(4), None)
        mean = errors.mean(0)
        errors = errors - mean + mean.mean(1, keepdim=True) + scale * (mean - mean.mean(1, keepdim=True))
        best = int(errors.mean(0).sum(0).argmin())
        orders = [torch.randperm(8, generator=generator) for _ in range(races)]
        lost += [best not in raced(errors[order], rate) for order in orders]
    assert sum(lost) / len(lost) <= rate


def test_pruning_keeps_its_rate_where_nothing_tells_prompts_apart() -> None:
    """The hardest case: all prompts equally good, so the full choice is luck; a test too bold would show."""
    generator, n, rate = torch.Generator().manual_seed(0), 1000, 0.1
    tables = 100 + torch.randn(n, 6, 4, 5, generator=generator, dtype=torch.float64)
    lost = [int(e.mean(0).sum(0).argmin()) not in raced(e, rate) for e in tables]
    assert sum(lost) / n <= rate


@pytest.mark.stress
def test_shared_noise_is_why_it_works() -> None:
    model = clouds()
    x = model.denoiser.draw(60, 3)
    labels = [KINDS[j] for j in truth(model, x, KINDS).argmax(1).tolist()]
    how: dict[str, Any] = {"levels": 6, "weights": "nats", "batch": 256}
    shared, apart = (classify(model, x, KINDS, shared=s, **how) for s in (True, False))
    assert shared.rows == apart.rows
    assert shared.right(labels).mean() > apart.right(labels).mean() + 0.05
    assert float(shared.stderr.mean()) < float(apart.stderr.mean())


def test_ties_are_no_answer_and_are_counted(exact: Analytic) -> None:
    """The exact denoiser cannot tell the order of words, which no encoder says beforehand."""
    x = exact.denoiser.draw(3, 5, {"shape": "circle", "colour": "red"})
    for prune in (None, 0.1):
        found = classify(exact, x, ["red circle", "circle red", "blue"], draws=4, prune=prune)
        assert found.ties == 3 and found.chosen == [""] * 3 and "3 tied" in repr(found)
        row = found.accuracy(["red circle"] * 3).iloc[0]
        assert (row["accuracy"], row["ties"]) == (0, 3)


def test_a_stopped_call_goes_on(tiny: Any, run: Any, tmp_path: Path) -> None:
    texts, how = ["a cat", "a dog"], {"levels": 4, "draws": 3, "prune": 0.2}
    first = classify(tiny, run, texts, store=tmp_path / "store", **how)
    again = classify(tiny, run, texts, store=tmp_path / "store", **how)
    assert again.data.identical(first.data)
    assert classify(tiny, run, texts, **how).data.identical(first.data)


def test_it_is_kept_shown_and_drawn(tiny: Any, run: Any, tmp_path: Path) -> None:
    found = classify(tiny, run, ["a <b> cat", "a dog"], levels=4)
    found.save(tmp_path / "found.zarr")
    again = Classification.load(tmp_path / "found.zarr")
    assert again.chosen == found.chosen and again.data.identical(found.data)
    assert "&lt;b&gt;" in found._repr_html_() and "<b>" not in found._repr_html_()
    drawn = found.plot()
    assert len(drawn.data[0].z) == 2 and "&lt;b&gt;" in drawn.to_json()
    assert found.data.attrs["weights"]  # the hash of the model's, not the name of ours
    with pytest.raises(UsageError, match="give a store written by Classification.save"):
        denoscope.analysis.scores.save_store(found.data[["scores"]], tmp_path / "other")
        Classification.load(tmp_path / "other")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompts": ["a cat"]}, UsageError, r"\['a cat'\]; to choose takes at least two"),
    ({"prompts": ["a cat", "a dog", "a cat"]}, UsageError, "'a cat' twice, which would always tie"),
    ({"prompts": ["a cat", "a  CAT"]}, UsageError, "reads 'a  CAT' as it reads 'a cat', to the bit"),
    ({"images": torch.rand(1, 3, 24, 24)}, UsageError, "24 by 24 pixels"),
    ({"images": 255 * torch.rand(1, 3, 16, 16)}, UsageError, r"0\.\.1"),
    ({"images": torch.rand(0, 3, 16, 16)}, UsageError, "at least one picture"),
    ({"weights": "both"}, UsageError, "weights is 'both'"),
    ({"weights": [1.0] * 3}, UsageError, "3 weights for 4 levels"),
    ({"weights": [1.0, -1.0, 1.0, 1.0]}, UsageError, "0 or more, finite"),
    ({"weights": [0.0] * 4}, UsageError, "not all 0"),
    ({"prune": 0.1}, UsageError, "draws is 1, and pruning looks at two"),
    ({"prune": 1.5, "draws": 4}, UsageError, "a rate between 0 and 1"),
    ({"batch": 0}, UsageError, "batch is 0"),
    ({"levels": 2}, UsageError, "one draw at 2 levels"),
    ({"log_snr": (-50, 0)}, UsageError, "was trained from"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_arguments_are_told(
    tiny: Any, run: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"images": run, "prompts": ["a cat", "a dog"], "levels": 4, **change}
    with pytest.raises(error, match=message):
        classify(tiny, **given)


def test_models_without_text_other_runs_and_other_labels_are_told(tiny: Any, run: Any) -> None:
    ddpm = load(tiny_ddpm())
    with pytest.raises(UsageError, match="reads no text"):
        classify(ddpm, torch.rand(1, *ddpm.latent_shape), ["a cat", "a dog"])
    with pytest.raises(UsageError, match="give a run of this model and size"):
        classify(Analytic(two_by_two()), run, ["red", "blue"])
    found = classify(tiny, run, ["a cat", "a dog"], levels=4)
    with pytest.raises(NotFoundError, match=r"'a cta' is none of the prompts; did you mean 'a cat'"):
        found.accuracy(["a cta", "a dog"])
    with pytest.raises(UsageError, match="1 labels for 2 pictures"):
        found.right(["a cat"])
    with pytest.raises(UsageError, match="data lack"):
        Classification(found.data.drop_vars("behind"))
