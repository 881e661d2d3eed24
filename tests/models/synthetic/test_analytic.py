"""The analytic denoiser is exact: against integrals, gradients, Bayes' rule and its own samples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser, two_by_two
from denoscope.probes.intervene import Intervention
from denoscope.probes.trace import trace

CONDITIONS = [{}, {"shape": "circle"}, {"colour": "blue"}, {"shape": "square", "colour": "red"}]


@pytest.fixture(scope="module")
def mixture():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 2, 2, generator=g, dtype=torch.float64)
    covs = a @ a.transpose(1, 2) + 0.1 * torch.eye(2)
    means = 2 * torch.randn(3, 2, generator=g, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return AnalyticDenoiser(weights, means, covs, {"kind": ["a", "b", "a"]})


def grid(half=14.0, n=400):
    line = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line), (2 * half / (n - 1)) ** 2


@pytest.mark.parametrize("condition", [{}, {"kind": "a"}, {"kind": "b"}])
def test_the_density_integrates_to_one(mixture, condition):
    points, cell = grid()
    total = mixture.log_prob(points, 0.7, [condition] * len(points)).exp().sum() * cell
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("condition", [{}, {"kind": "a"}])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_denoised_mean_is_the_integral_over_clean_points(mixture, condition, sigma):
    """E[x0 | x] = sum x0 p(x0) N(x; x0, sigma²) / sum p(x0) N(x; x0, sigma²), on a fine grid."""
    x0, _ = grid()
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    log_p = mixture.log_prob(x0, 0.0, [condition] * len(x0)) - ((x - x0) ** 2).sum(-1) / (2 * sigma**2)
    expected = log_p.softmax(0) @ x0
    torch.testing.assert_close(mixture(x, sigma, [condition])[0], expected, atol=1e-6, rtol=1e-6)


@given(st.sampled_from([0.01, 0.5, 3.0, 50.0]), st.sampled_from(CONDITIONS), st.integers(0, 99))
def test_the_score_is_the_gradient_of_the_log_density(sigma, condition, seed):
    model = two_by_two()
    x = 3 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x.requires_grad_()
    model.log_prob(x, sigma, [condition] * 4).sum().backward()
    torch.testing.assert_close(model.score(x, sigma, [condition] * 4), x.grad, atol=1e-8, rtol=1e-8)


def test_the_posterior_is_bayes_rule(mixture):
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    likelihood = [mixture.log_prob(x, 0.2, [{"kind": v}] * 50).exp() for v in ("a", "b")]
    joint = torch.stack([0.7 * likelihood[0], 0.3 * likelihood[1]], -1)
    torch.testing.assert_close(mixture.posterior(x, "kind", 0.2), joint / joint.sum(-1, keepdim=True))
    assert mixture.values("kind") == ["a", "b"]


def test_information_between_point_and_attribute_is_exact():
    """Far apart, an attribute of two equal values is worth log 2 nats; attributes are independent here."""
    model = two_by_two(distance=20.0)
    x = model.draw(2000, seed=0, condition={"shape": "circle"})
    gain = model.log_prob(x, 0.0, [{"shape": "circle"}] * 2000) - model.log_prob(x)
    assert gain.mean() == pytest.approx(math.log(2), abs=1e-6)
    both = model.log_prob(x, 0.0, [{"shape": "circle", "colour": "red"}] * 2000) - model.log_prob(x)
    red = model.log_prob(x, 0.0, [{"colour": "red"}] * 2000) - model.log_prob(x)
    torch.testing.assert_close(both, gain + red)


def test_samples_have_the_moments(mixture):
    x = mixture.draw(40_000, seed=0)
    weights = mixture.log_weights.exp()
    mean = weights @ mixture.components.means
    torch.testing.assert_close(x.mean(0), mean, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("text", "corner"), [("circle red", (-2, -2)), ("square blue", (2, 2)), ("blue circle", (-2, 2))]
)
def test_our_loop_samples_the_conditional_distribution(text, corner):
    model = Analytic(two_by_two())
    run = trace(model, [text] * 200, seeds=list(range(200)), steps=50)
    torch.testing.assert_close(
        run.latents.mean(0), torch.tensor(corner, dtype=torch.float64), atol=0.12, rtol=0
    )
    assert run.latents.std(0).tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_unconditional_samples_fill_all_corners_evenly():
    model = Analytic(two_by_two())
    x = trace(model, [""] * 400, seeds=list(range(400)), steps=30).latents
    corners = torch.bincount((x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long(), minlength=4)
    assert corners.min() > 70 and corners.max() < 130


def test_a_planted_gate_decides_where_samples_go():
    """Sites work: opening the gate to the fourth component alone sends every sample to its corner."""
    model = Analytic(two_by_two())
    only = Intervention("denoiser/gate/out", lambda g, _: torch.eye(4, dtype=g.dtype)[3].expand_as(g))
    run = trace(
        model, [""] * 50, seeds=list(range(50)), steps=20, sites="denoiser/gate/out", interventions=[only]
    )
    assert (run.latents > 0).all() and run["denoiser/gate/out"].shape == (20, 50, 4)
    assert model.sites().to_frame().loc["denoiser/components/means", "shape"] == (4, 2)


def test_wrong_input_says_so():
    model = two_by_two()
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(LookupError, match="shape is never 'triangle'"):
        model(x, 1.0, [{"shape": "triangle"}])
    with pytest.raises(LookupError, match="did you mean 'colour'"):
        model(x, 1.0, [{"color": "red"}])
    with pytest.raises(ValueError, match="1 samples but 2 conditions"):
        model(x, 1.0, [{}, {}])
    with pytest.raises(ValueError, match="weights > 0"):
        AnalyticDenoiser(torch.tensor([0.0]), torch.zeros(1, 2), torch.eye(2)[None])
    with pytest.raises(LookupError, match="no attribute value"):
        trace(Analytic(model), ["green"], seeds=[0], steps=2)
