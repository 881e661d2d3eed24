"""Directions at a site: exact means, a planted direction and its window found again, probes beside
controls."""

from __future__ import annotations

import pytest
import torch

from denoscope import Direction, When, trace
from denoscope.analysis import acting_steps, jacobian_directions, site_direction
from denoscope.analysis.directions.probing import probe
from denoscope.editing import freeze
from denoscope.editing.planting.directions import listening
from denoscope.editing.planting.places import Truth, lasting
from denoscope.models.site import Site

PICTURE, TOKENS = Site("unet/up.0.res.0/resid.post"), Site("unet/mid.attn.0.0/cross_attn.out")
POSITIVE, NEGATIVE = ["a red cat", "a red dog", "the red cook"], ["a blue cat", "a blue dog", "the blue cook"]
RUN = {"seeds": [0, 1], "steps": 4}


def vector(n=16, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("site", "over"), [(PICTURE, (3, 4)), (TOKENS, (2,))])
def test_the_difference_of_means_is_that_of_a_loop(tiny, site, over):
    d = site_direction(tiny, site, POSITIVE, NEGATIVE, when=When(steps=[1, 2]), batch=5, **RUN)
    means = [
        trace(tiny, texts, seeds=[seed] * 3, sites=[site], when=When(steps=[1, 2]), steps=4)[site].mean(over)
        for texts in (POSITIVE, NEGATIVE)
        for seed in (0, 1)
    ]
    wanted = (sum(means[:2]) - sum(means[2:])).mean((0, 1)) / 2
    torch.testing.assert_close(d.vector, wanted, atol=1e-5, rtol=1e-4)
    assert [i for i, _ in d.about["gap_by_step"]] == [1, 2] and -1 <= d.about["halves"] <= 1


@pytest.mark.parametrize("method", ["mean", "pca", "probe", "jacobian"])
def test_strength_one_joins_the_means_whatever_the_method(tiny, method):
    mean = site_direction(tiny, TOKENS, POSITIVE, NEGATIVE, **RUN)
    d = site_direction(tiny, TOKENS, POSITIVE, NEGATIVE, method=method, **RUN)
    assert mean.dot(d) / d.norm() == pytest.approx(
        d.norm(), rel=1e-3
    )  # as long as the gap along it, and forward
    assert d.about["method"] == method and d.about["weights"]


@pytest.mark.parametrize("method", ["mean", "pca"])
def test_a_planted_direction_and_its_window_are_found(tiny, method):
    steps = tiny.steps(6)
    truth = Truth((PICTURE,), snr=(steps[2].log_snr - 1e-6, steps[5].log_snr - 1e-6))  # steps 2, 3, 4
    assert truth.steps(steps) == (2, 3, 4)
    planted = Direction(PICTURE, 30 * vector(tiny_channels(tiny)) / 4)
    with lasting(tiny, [listening(tiny, planted, "red", truth)]):
        found = site_direction(tiny, PICTURE, POSITIVE, NEGATIVE, seeds=[0, 1], steps=6, method=method)
    assert found.cosine(planted) > 0.99
    assert acting_steps(found) == (2, 3, 4)
    nothing = site_direction(tiny, PICTURE, POSITIVE, NEGATIVE, seeds=[0, 1], steps=6, method=method)
    assert abs(nothing.cosine(planted)) < 0.9


def tiny_channels(tiny):
    return trace(tiny, ["a cat"], seeds=[0], steps=1, sites=[PICTURE])[PICTURE].shape[2]


def test_it_folds_into_weights_where_that_is_exact(tiny):
    d = site_direction(tiny, TOKENS, POSITIVE, NEGATIVE, **RUN)
    act = (20 * d).steer(1.0, When(branch=None))
    plain, hooked = (trace(tiny, ["a cat"], seeds=[0], steps=3, interventions=i).latents for i in ((), [act]))
    with freeze(tiny, act).applied(tiny):
        frozen = trace(tiny, ["a cat"], seeds=[0], steps=3).latents
    assert (frozen - hooked).abs().max() < 0.02 * (hooked - plain).abs().max()


def test_a_probe_finds_what_was_planted_and_its_control_does_not():
    """x = noise + y u: held-out accuracy is high, that of shuffled labels near one half."""
    u, source = vector(8) / vector(8).norm(), torch.Generator().manual_seed(1)
    noise = torch.randn(2, 24, 2, 8, generator=source)
    values = noise + torch.tensor([2.0, -2.0]).view(2, 1, 1, 1) * u
    normal, told = probe(values)
    assert torch.cosine_similarity(normal, u, 0) > 0.9
    assert told["accuracy"] > 0.9 and abs(told["control"] - 0.5) < 0.12
    _, nothing = probe(noise)
    assert abs(nothing["accuracy"] - 0.5) < 0.2
    with pytest.raises(ValueError, match="pairs that it was not fitted to, and there is 1"):
        probe(noise[:, :1])


def test_singular_directions_are_those_of_the_whole_jacobian(tiny):
    """Exact: against the matrix, column by column, by finite differences."""
    found = jacobian_directions(tiny, TOKENS, ["a cat"], seeds=[0], step=1, rank=3, iterations=30, steps=3)
    with torch.no_grad():
        run = tiny.sample(["a cat"], seeds=[0], steps=3)
        state = next(s for s in run if s.step.index == 1)

        def out(v):
            act = Direction(TOKENS, v).steer(1.0)
            return tiny.denoise(state.model_input, state.step, state.prompts, interventions=[act]).double()

        h = 0.02
        columns = [(out(h * e) - out(-h * e)).flatten() / (2 * h) for e in torch.eye(16)]
    _, values, vectors = torch.linalg.svd(torch.stack(columns, 1), full_matrices=False)
    for i, d in enumerate(found):
        assert d.norm() == pytest.approx(1, abs=1e-4)
        assert d.about["singular_value"] == pytest.approx(float(values[i]), rel=0.05)
    assert abs(float(found[0].vector.double() @ vectors[0])) > 0.98
    assert found[0].dot(found[1]) == pytest.approx(0, abs=1e-4)


def test_what_cannot_be_found_is_refused(tiny):
    with pytest.raises(ValueError, match="between two classes"):
        site_direction(tiny, TOKENS, POSITIVE, [], **RUN)
    with pytest.raises(LookupError, match="has no site"):
        site_direction(tiny, "unet/mid.res.9/resid.post", POSITIVE, NEGATIVE, **RUN)
    with pytest.raises(ValueError, match="so no channels for a direction"):
        site_direction(tiny, "unet/mid.attn.0.0/cross_attn.probs", POSITIVE, NEGATIVE, **RUN)
    with pytest.raises(ValueError, match="reach past the run"):
        site_direction(tiny, TOKENS, POSITIVE, NEGATIVE, when=When(steps=[9]), **RUN)
    with pytest.raises(ValueError, match="nothing differs there"):
        site_direction(tiny, "unet/temb/out", POSITIVE, NEGATIVE, **RUN)
    with pytest.raises(ValueError, match="there is 1; give 2 or more"):
        site_direction(tiny, TOKENS, POSITIVE[:1], NEGATIVE[:1], method="probe", **RUN)
    with pytest.raises(ValueError, match="iterations is 10000000; a few are enough"):
        jacobian_directions(tiny, TOKENS, ["a cat"], seeds=[0], step=1, iterations=10_000_000, steps=3)
    with pytest.raises(ValueError, match="step is 7 of 4"):
        jacobian_directions(tiny, TOKENS, ["a cat"], seeds=[0], step=7, steps=4)
    with pytest.raises(ValueError, match="has 16 channels, so it lies between"):
        jacobian_directions(tiny, TOKENS, ["a cat"], seeds=[0], step=1, rank=17, steps=2)
    with pytest.raises(ValueError, match="knows no gap_by_step"):
        acting_steps(Direction(TOKENS, vector()))
