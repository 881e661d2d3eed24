"""Guidance on a denoiser whose answers are known: each value equals its closed form."""

from __future__ import annotations

import pytest
import torch

from denoscope.guidance import (
    CFG,
    PAG,
    Adaptive,
    Compose,
    Contrast,
    EmbeddingMatch,
    JudgeGradient,
    LinearAG,
    RegionPreserve,
)
from denoscope.models.synthetic.analytic import Analytic, AnalyticDenoiser, two_by_two
from denoscope.probes.guiding.composing import composition_gap
from denoscope.probes.guiding.fitting import fit_linear_ag
from denoscope.probes.intervene import scale
from denoscope.probes.trace import trace

SEEDS = list(range(6))
LEVELS = (0.3, 1.0, 5.0)


@pytest.fixture(scope="module")
def model():
    return Analytic(two_by_two())


@pytest.fixture(scope="module")
def entangled():
    """Blue circles are rare, so shape and colour are not independent."""
    plain = two_by_two(distance=3.0)
    parts, weights = plain.components, torch.tensor([0.4, 0.1, 0.1, 0.4], dtype=torch.float64)
    covs = torch.eye(2, dtype=torch.float64).expand(4, 2, 2) * 0.25
    return Analytic(AnalyticDenoiser(weights, parts.means.data, covs, plain.attributes))


def noisy(model, sigma):
    """A step, and what the network is given there; half of it far from all data."""
    step = model.step_at(sigma=sigma)
    return step, 2 * model.noise(SEEDS) / (1 + sigma**2) ** 0.5


def eps(model, x, step, text):
    return model.denoise(x, step, [text] * len(x))


def guided(model, x, step, text, guidance):
    return model.denoise(x, step, [text] * len(x), guidance=guidance)


@pytest.mark.parametrize("sigma", LEVELS)
def test_and_of_independent_attributes_is_the_joint_condition(model, sigma):
    step, x = noisy(model, sigma)
    joint = eps(model, x, step, "red circle")
    torch.testing.assert_close(guided(model, x, step, "circle", Compose({"red": 1.0})), joint)
    both = guided(model, x, step, "", Compose({"circle": 1.0, "red": 1.0}))
    torch.testing.assert_close(both, joint)
    four = guided(model, x, step, "circle", CFG(4.0) + Compose({"red": 4.0}))
    none = eps(model, x, step, "")
    torch.testing.assert_close(four, none + 4 * (joint - none))
    apart = guided(model, x, step, "circle", Compose({"red": -1.0}))
    torch.testing.assert_close(apart, eps(model, x, step, "circle") - (eps(model, x, step, "red") - none))


def test_not_leads_away(model):
    """Circles that are not red: more of them are blue."""
    run = {"prompts": ["circle"] * 20, "seeds": range(20), "steps": 10}
    blue = [
        model.denoiser.posterior(trace(model, guidance=g, **run).latents, "colour")[:, 1].mean()
        for g in (CFG(2.0), CFG(2.0) + Compose({"red": -1.0}), CFG(2.0) + Compose({"red": -2.0}))
    ]
    assert blue[0] + 0.1 < blue[1] < blue[2]


def test_the_composition_gap_is_0_where_attributes_are_independent_and_only_there(model, entangled):
    free = composition_gap(model, ["red", "circle"], "red circle", seeds=SEEDS, steps=5)
    assert free.gap.max() < 1e-9 and free.cosine.min() > 1 - 1e-9
    bound = composition_gap(entangled, ["blue", "circle"], "blue circle", seeds=SEEDS, steps=5, guidance=2.0)
    assert bound.gap.mean() > 0.05 and bound.gap.shape == (5, 6)
    assert len(bound.to_frame()) == 30 and "gap" in bound._repr_html_() and len(bound.plot().data) == 1
    step, x = noisy(entangled, 1.0)
    summed = guided(entangled, x, step, "", Compose({"blue": 1.0, "circle": 1.0}))
    assert not torch.allclose(summed, eps(entangled, x, step, "blue circle"), atol=1e-2)
    with pytest.raises(ValueError, match=r"the texts are \['red'\]; give two or more"):
        composition_gap(model, ["red"], "red", seeds=[0])
    with pytest.raises(ValueError, match="the gap is measured on runs of a scale, or of a CFG"):
        composition_gap(model, ["red", "circle"], "red", seeds=[0], guidance=Compose({"a": 1.0}))


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_gradient_of_the_true_posterior_makes_the_conditional_denoiser(model, sigma):
    """Bayes' rule: score(x | circle) = score(x) + grad log p(circle | x)."""
    step, x = noisy(model, sigma)

    def circle(seen):
        scaled = seen.model_input * (1 + seen.step.sigma**2) ** 0.5
        return model.denoiser.posterior(scaled, "shape", seen.step.sigma)[:, 0].log()

    torch.testing.assert_close(
        guided(model, x, step, "", JudgeGradient(circle, 1.0)), eps(model, x, step, "circle")
    )
    three = guided(model, x, step, "red", JudgeGradient(circle, 3.0, steps=None))
    given, both = eps(model, x, step, "red"), eps(model, x, step, "red circle")
    torch.testing.assert_close(three, given + 3 * (both - given))


def test_the_gradient_of_a_clean_picture_s_score_is_that_of_the_estimate(model):
    """(x - s eps) / a with eps held; what is normalised is as long as eps, and points the same way."""
    step, x = noisy(model, 1.0)
    to = torch.tensor([3.0, -1.0], dtype=torch.float64)

    def near(seen):
        return -(seen.images - to).square().sum(1) / 2

    plain = eps(model, x, step, "")
    a = s = 0.5**0.5
    by_hand = plain - 0.2 * s * (to - (x - s * plain) / a) / a
    torch.testing.assert_close(guided(model, x, step, "", JudgeGradient(near, 0.2)), by_hand)
    change = guided(model, x, step, "", JudgeGradient(near, 0.2, normalised=True)) - plain
    torch.testing.assert_close(change.norm(dim=1), 0.2 * plain.norm(dim=1))
    assert torch.cosine_similarity(change, by_hand - plain).min() > 1 - 1e-9


def test_a_region_comes_out_as_the_reference(model):
    """The first coordinate is kept, the second goes where the condition leads it."""
    reference = torch.tensor([[1.5, 0.0]], dtype=torch.float64)
    keep = RegionPreserve(torch.tensor([1.0, 0.0]), reference)
    found = trace(model, ["red"] * 6, seeds=SEEDS, steps=10, guidance=keep).latents
    torch.testing.assert_close(found[:, 0], torch.full((6,), 1.5, dtype=torch.float64))
    assert (found[:, 1] < 0).all() and found[:, 1].std() > 0.01
    half = RegionPreserve(torch.tensor([1.0, 0.0]), reference, 0.5)
    step, x = noisy(model, 1.0)
    clean = [model.to_x0(x, guided(model, x, step, "", g), step)[:, 0] for g in (1.0, half, keep)]
    torch.testing.assert_close(clean[1], (clean[0] + clean[2]) / 2)


class Points:
    """A judge whose embedding of a point is the point."""

    def similarity(self, images, others):
        return torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(others).T


def test_an_embedding_is_approached_by_the_gradient_of_its_cosine(model):
    step, x = noisy(model, 1.0)
    plain, to = eps(model, x, step, ""), torch.tensor([0.0, 1.0], dtype=torch.float64)
    a = s = 0.5**0.5
    clean = (x - s * plain) / a
    n = clean.norm(dim=1, keepdim=True)
    gradient = to / n - clean * clean[:, 1:] / n**3
    found = guided(model, x, step, "", EmbeddingMatch(Points(), to[None], 2.0))
    torch.testing.assert_close(found, plain - 2 * s * gradient / a)


def test_contrast_is_exact_where_the_changed_network_is_known(model):
    """Twice the density of the gate is a sharper gate; the output follows by hand."""
    step, x = noisy(model, 1.0)
    sharp = scale("denoiser/components/density", 2.0)
    plain, changed = eps(model, x, step, ""), model.denoise(x, step, [""] * 6, interventions=[sharp])
    found = guided(model, x, step, "", Contrast([sharp], 3.0))
    torch.testing.assert_close(found, plain + 3 * (changed - plain))
    with pytest.raises(ValueError, match="analytic has no self-attention"):
        model.branch_names(PAG(1.0))


# adaptive guidance --------------------------------------------------------------------------------------


def rows(model, guidance, **more):
    run = trace(model, ["circle"] * 6, seeds=SEEDS, steps=20, guidance=guidance, **more)
    return run, run.guidance


def test_the_literal_rule_fires_at_the_first_step_and_the_honest_one_does_not(model):
    """Predicted noise of both branches is the same where all is noise; predicted pictures are not."""
    full, _ = rows(model, 3.0)
    literal, log = rows(model, Adaptive(CFG(3.0), on="eps", arm="immediate"))
    assert (log.numbers["cosine"][0] > 0.99).all() and log.rows == (12,) + (6,) * 19
    honest, log = rows(model, Adaptive(CFG(3.0)))
    assert log.rows[:2] == (12, 12) and log.rows[-1] == 6
    assert ((log.numbers["stopped"] > 0).float().argmax(0) > 1).all()
    guarded, log = rows(model, Adaptive(CFG(3.0), on="eps"))  # it falls first: armed when it rises again
    assert log.rows[:7] == (12,) * 7 and log.rows[-1] == 6
    far = [float((r.latents - full.latents).norm()) for r in (literal, honest, guarded)]
    assert max(far[1:]) < 0.25 * far[0]


def test_a_sample_stops_by_itself_and_goes_on_with_the_conditional_branch(model):
    whole, log = rows(model, Adaptive(CFG(3.0)))
    stopped = log.numbers["stopped"]
    assert len(set(stopped.sum(0).tolist())) > 1  # not all at one step
    for i in SEEDS[:2]:
        alone = trace(model, ["circle"], seeds=[i], steps=20, guidance=Adaptive(CFG(3.0))).latents
        torch.testing.assert_close(alone[0], whole.latents[i])
    for state in model.sample(["circle"] * 6, seeds=SEEDS, steps=20, guidance=Adaptive(CFG(3.0))):
        if state.step.index:
            done = stopped[state.step.index - 1] > 0
            assert torch.equal(state.output[done], state.outputs["cond"][done])
    before = trace(model, ["circle"], seeds=[0], steps=2, guidance=Adaptive(CFG(3.0)))
    assert torch.equal(before.latents, trace(model, ["circle"], seeds=[0], steps=2, guidance=3.0).latents)


def ends(model, text, steps, *ways):
    return [trace(model, [text] * 6, seeds=SEEDS, steps=steps, guidance=g).latents for g in ways]


def test_linear_ag_explains_the_unconditional_output_and_saves_its_rows(entangled):
    texts, run = ["circle", "square"] * 50, {"guidance": 2.0, "steps": 10}
    fit = fit_linear_ag(entangled, texts, seeds=range(100), computed=range(0, 10, 2), **run)
    assert min(fit.r2) > 0.99
    every = LinearAG(CFG(2.0), fit.cond, fit.uncond, tuple(range(10)), fit.times)
    full, found, plain, again = ends(entangled, "circle", 10, 2.0, fit, 1.0, every)
    assert (found - full).norm() < 0.1 * (plain - full).norm()
    assert torch.equal(again, full)
    run = trace(entangled, ["circle"] * 6, seeds=SEEDS, steps=10, guidance=fit)
    assert run.guidance.rows == (12, 6) * 5


def test_linear_ag_is_for_the_run_it_was_fitted_on(model):
    """Where both branches are equal, the unconditional one is known from the other alone."""
    given = {"prompts": [""] * 50, "seeds": range(50), "guidance": 2.0, "steps": 5}
    fit = fit_linear_ag(model, computed=[0], **given)
    full, found = ends(model, "", 5, 2.0, fit)
    torch.testing.assert_close(found, full, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"fitted on a run of 5 steps .*, and this one has 6"):
        trace(model, ["circle"], seeds=[0], steps=6, guidance=fit)
    with pytest.raises(ValueError, match="at step 2 knows 0; begin at step 0"):
        model.denoise(model.noise([0]), model.steps(5)[2], ["circle"], guidance=fit)
    with pytest.raises(ValueError, match=r"computed steps \(7,\) do not fit 5 times"):
        fit_linear_ag(model, computed=[7], **given)
    with pytest.raises(ValueError, match="1 samples have 2 numbers for fits of up to 9; give 50 samples"):
        fit_linear_ag(model, ["circle"], seeds=[0], computed=[0], guidance=2.0, steps=5)
    for guidance in (1.0, Adaptive(CFG(2.0)), CFG(2.0, steps=[0])):
        with pytest.raises(ValueError, match="fitted on runs that CFG guides at all steps"):
            fit_linear_ag(model, computed=[0], **{**given, "guidance": guidance})
