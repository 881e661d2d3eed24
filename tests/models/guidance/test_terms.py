"""Terms of guidance: they add up, at strength 0 they are not there, and what cannot act is refused."""

from __future__ import annotations

import diffusers
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
    cosine,
    linear,
)
from denoscope.models.judges import load_judge
from denoscope.models.run.context import When
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.direction import Direction
from denoscope.probes.intervene import scale, zero
from denoscope.probes.trace import trace
from tests.models.families.test_families import opened

PROMPTS, SEEDS = ["a cat", "a red dog"], [0, 1]
MID = "unet/mid.attn.0.0/cross_attn.out"


def run(model, guidance, prompts=PROMPTS, seeds=SEEDS, steps=3, **settings):
    return trace(model, prompts, seeds=seeds, steps=steps, guidance=guidance, **settings)


def bright(seen):
    return seen.images.mean((1, 2, 3))


def region(model, weight=1.0, **more):
    mask = torch.zeros(model.latent_shape)
    mask[..., : mask.shape[-1] // 2] = 1
    return RegionPreserve(mask, model.noise([7]), weight, **more)


def all_terms(model, by):
    return {
        "PAG": PAG(3.0 * by),
        "Compose": Compose({"a fish": 2.0 * by, "a bird": -1.0 * by}),
        "Contrast": Contrast([scale(MID, 2.0)], 3.0 * by),
        "JudgeGradient": JudgeGradient(bright, 0.5 * by),
        "EmbeddingMatch": EmbeddingMatch(load_judge("emoji"), torch.zeros(1, 3, 16, 16), 0.5 * by),
        "RegionPreserve": region(model, by),
    }


def summed(terms, base=None):
    total = base
    for term in terms:
        total = term if total is None else total + term
    return total


def test_at_strength_0_they_are_not_there(tiny):
    one = {"prompts": ["a cat"], "seeds": [0], "steps": 1}
    none = all_terms(tiny, 0.0).values()
    for base in (CFG(4.0), None):
        plain = run(tiny, base or 1.0, **one)
        found = run(tiny, summed(none, base), **one)
        assert torch.equal(found.latents, plain.latents)
        assert found.guidance.rows == plain.guidance.rows
        assert set(found.guidance.lengths) == set(plain.guidance.lengths)
    for name, term in all_terms(tiny, 0.0).items():
        assert tiny.branch_names(term) == ("cond",), name


def test_each_says_what_it_added_and_a_batch_equals_its_parts(tiny):
    terms, how = all_terms(tiny, 1.0), {"steps": 2, "negative": "a bus"}
    guidance = summed(terms.values(), CFG(4.0))
    with torch.no_grad():
        states = list(tiny.sample(PROMPTS, seeds=SEEDS, guidance=guidance, **how))
    for state in states:
        assert set(state.added) == {"CFG", *terms}
        assert all(x.abs().amax((1, 2, 3)).min() > 0 for x in state.added.values())
        torch.testing.assert_close(state.outputs["cond"] + sum(state.added.values()), state.output)
    alone = run(tiny, guidance, PROMPTS[1:], SEEDS[1:], **how)
    torch.testing.assert_close(alone.latents[0], states[-1].latents[1], rtol=1e-3, atol=1e-4)


def test_the_log_holds_lengths_and_cosines_of_all_parts(tiny):
    made = run(tiny, CFG(4.0) + PAG(3.0, steps=[1]) + PAG(1.0, "up*", name="worse")).guidance
    assert list(made.lengths) == ["CFG", "PAG", "PAG 2"] and made.rows == (6, 8, 6)
    assert (made.lengths["PAG"] > 0).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert made.cosines["PAG"][0].isnan().all() and (made.cosines["CFG"].abs() <= 1).all()
    frame = made.to_frame()
    assert len(frame) == 3 * 2 * 3 and list(frame.columns[:4]) == ["step", "sigma", "sample", "part"]
    assert repr(made).startswith("GuidanceLog(3 steps; added, as a share of the output: CFG ")
    assert "CFG" in made._repr_html_() and len(made.plot().data) == 3
    with pytest.raises(LookupError, match="the guidance has no part 'PGA'; did you mean 'PAG'"):
        made.share("PGA")
    assert repr(run(tiny, 1.0).guidance) == "GuidanceLog(3 steps; nothing was added; 6 rows)"


def test_the_order_of_terms_is_that_given_and_sums_are_flat(tiny):
    a, b, c = CFG(4.0), PAG(3.0), region(tiny)
    assert (a + b + c).terms == (a + (b + c)).terms == (b, c) and (b + a).base == a
    last = run(tiny, a + b + c)
    assert not torch.equal(last.latents, run(tiny, a + c + b).latents)
    with pytest.raises(ValueError, match=r"CFG\(.*\) and CFG\(.*\) both say .*CFG\(4.0\) \+ PAG\(3.0\)"):
        a + CFG(2.0)
    with pytest.raises(TypeError, match="unsupported operand"):
        a + 3.0
    with pytest.raises(ValueError, match="branch 'perturbed', and not the same one; .*name="):
        run(tiny, PAG(3.0) + PAG(2.0, "up*"))


def test_pag_equals_the_pipeline_of_diffusers(tiny):
    pipe = tiny_sd()
    their = diffusers.StableDiffusionPAGPipeline(
        **{n: pipe.components[n] for n in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        pag_applied_layers=["mid"],
    )
    their.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(s) for s in SEEDS]
    size = tiny.size
    expected = their(
        PROMPTS, generator=generators, num_inference_steps=3, guidance_scale=4.0, pag_scale=3.0,
        output_type="latent", height=size[0], width=size[1],
    ).images  # fmt: skip
    torch.testing.assert_close(run(tiny, CFG(4.0) + PAG(3.0)).latents, expected, rtol=1e-3, atol=1e-4)


def test_a_branch_of_its_own_is_seen_by_when_and_can_be_watched(tiny):
    guidance = CFG(4.0) + Compose({"a fish": 3.0})
    seen = run(tiny, guidance, sites=MID, when=When(branch="a fish"))
    fish = run(tiny, 1.0, ["a fish"] * 2, sites=MID)
    torch.testing.assert_close(seen[MID][0], fish[MID][0])
    off = run(tiny, guidance, interventions=[zero(MID, When(branch="a fish"))])
    assert not torch.equal(off.latents, seen.latents)
    with pytest.raises(ValueError, match="no branch 'a fsh'; did you mean 'a fish'"):
        run(tiny, guidance, interventions=[zero(MID, When(branch="a fsh"))])


def test_contrast_at_scale_1_is_the_intervention_itself(tiny):
    direction = Direction(MID, torch.randn(16, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        by_guidance = run(tiny, Contrast([direction.steer(5.0)], 1.0))
        steered = run(tiny, 1.0, interventions=[direction.steer(5.0)])
        torch.testing.assert_close(by_guidance.latents, steered.latents)
    half = run(tiny, Contrast([direction.steer(5.0)], 1.0, steps={0: 0.5}), steps=1).latents
    ends = [run(tiny, g, steps=1).latents for g in (1.0, Contrast([direction.steer(5.0)], 1.0))]
    torch.testing.assert_close(half, (ends[0] + ends[1]) / 2)


def test_schedules(tiny):
    """All steps alike is CFG to the bit; at factor 0 the other branch is not computed."""
    one = {"prompts": ["a cat"], "seeds": [0], "steps": 2}
    plain = run(tiny, 4.0, **one)
    assert torch.equal(run(tiny, CFG(4.0, steps={0: 1, 1: 1}), **one).latents, plain.latents)
    early = run(tiny, CFG(4.0, steps=[0]), **one)
    assert early.guidance.rows == (2, 1)
    with torch.no_grad():
        first = next(tiny.sample(["a cat"], seeds=[0], steps=2, guidance=4.0)).sampler_state()
        *_, rest = tiny.sample(["a cat"], seeds=[0], steps=2, guidance=1.0, start=first)
    assert torch.equal(early.latents, rest.latents)
    twice = run(tiny, CFG(4.0, steps={0: 2.0}), **{**one, "steps": 1}).latents
    assert torch.equal(twice, run(tiny, 7.0, **{**one, "steps": 1}).latents)
    for factors in (linear(20), cosine(20)):
        assert len(factors) == 20 and sum(factors.values()) / 20 == pytest.approx(1)
        assert list(factors.values()) == sorted(factors.values()) and factors[0] == 0
    with pytest.raises(ValueError, match="steps is 1; factors rise over 2 to 10000 steps"):
        linear(1)


def test_rows_at_several_steps_each_have_their_factor(tiny):
    steps, x = tiny.steps(3), tiny.noise(SEEDS)
    guidance = CFG(4.0, steps={0: 1.0, 2: 0.5}) + PAG(3.0, steps=[2])
    with torch.no_grad():
        both = tiny.denoise(x, [steps[0], steps[2]], PROMPTS, guidance=guidance)
        alone = [
            tiny.denoise(x[[i]], steps[k], [PROMPTS[i]], guidance=guidance)[0] for i, k in enumerate((0, 2))
        ]
    torch.testing.assert_close(both, torch.stack(alone), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"but Step\(index=-1.* is in none; leave steps out"):
        tiny.denoise(x, tiny.step_at(sigma=1.0), PROMPTS, guidance=guidance)


@pytest.mark.parametrize("guidance", [CFG(4.0, steps=[5]), PAG(1.0, steps=[5]), CFG(4.0) + PAG(1, steps=[5])])
def test_steps_outside_of_the_run_are_refused(tiny, guidance):
    with pytest.raises(ValueError, match=r"(CFG|PAG) acts at steps up to 5, but the run has steps 0 to 2"):
        run(tiny, guidance)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_strengths_that_cannot_be_are_refused(tiny, wrong):
    makers = [
        PAG,
        lambda w: Compose({"a": w}),
        lambda w: Contrast([scale(MID, 2.0)], w),
        lambda w: JudgeGradient(bright, w),
        lambda w: EmbeddingMatch(load_judge("emoji"), torch.zeros(1, 3, 8, 8), w),
        lambda w: region(tiny, w),
    ]
    for maker in makers:
        with pytest.raises(ValueError, match=r"is (nan|inf); it is a finite number, 0 for nothing"):
            maker(wrong)
    with pytest.raises(ValueError, match="has the factor nan; factors are finite numbers"):
        CFG(4.0, steps={0: float("nan")})
    with pytest.raises(ValueError, match=r"indices 0, 1, \.\.\."):
        CFG(4.0, steps=[-1])
    with pytest.raises(ValueError, match="threshold is 2.0; it is a cosine"):
        Adaptive(CFG(4.0), threshold=2.0)
    with pytest.raises(ValueError, match="the weights are {}; give texts"):
        Compose({})
    with pytest.raises(ValueError, match="a Contrast needs interventions"):
        Contrast([], 1.0)
    with pytest.raises(ValueError, match="values outside of 0 .free. to 1"):
        RegionPreserve(torch.full((1,), 2.0), torch.zeros(1))


def test_families_that_cannot_take_a_term_say_why(tiny):
    for name in ("flux-dev", "sana"):
        with pytest.raises(ValueError, match="has no self-attention of the picture alone.*PAG cannot act"):
            opened(name).branch_names(PAG(3.0))
    with pytest.raises(LookupError, match="no block 'midd' has self-attention; .*mid.attn"):
        tiny.branch_names(PAG(3.0, "midd"))
    unconditional = opened("ddpm")
    for guidance, message in (
        (Compose({"a": 1.0}), "reads no prompts, so there is nothing to compose"),
        (Adaptive(CFG(4.0)), "does not guide .*, so there is nothing to stop"),
        (LinearAG(CFG(4.0), torch.zeros(1, 1), torch.zeros(1, 1), (0,), (1.0,)), "nothing to estimate"),
    ):
        with pytest.raises(ValueError, match=message):
            unconditional.branch_names(guidance)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda seen: seen.images.mean(), r"the score is \(\); it is one number a sample.* shape \(2,\)"),
        (lambda seen: 3.0, "the score is float"),
        (lambda seen: torch.zeros(len(seen.latents)), "does not depend on the picture"),
        (lambda seen: (0 * seen.latents).flatten(1).sum(1).log(), "gradient is not finite"),
    ],
)
def test_scores_that_cannot_guide_are_told(tiny, score, message):
    with pytest.raises(ValueError, match=message):
        run(tiny, JudgeGradient(score, 1.0), steps=1)


def test_shapes_that_do_not_fit_are_told(tiny):
    with pytest.raises(ValueError, match=r"the mask is \(3,\) .* latents, which are \(2, 4, "):
        run(tiny, RegionPreserve(torch.ones(3), torch.zeros(1)), steps=1)
    with pytest.raises(ValueError, match="3 pictures for 2 samples; give one, or one a sample"):
        run(tiny, EmbeddingMatch(load_judge("emoji"), torch.zeros(3, 3, 8, 8), 1.0), steps=1)
    with pytest.raises(ValueError, match="acts at pure noise .* steps=range"):
        run(opened("flux-dev"), JudgeGradient(bright, 1.0), steps=1)


def test_gradients_of_a_run_go_through_terms(tiny):
    """With and without computing steps again."""
    found = []
    for recompute in (False, True):
        start = tiny.start([0], 2)
        x = start.latents.clone().requires_grad_()
        start = type(start)(start.index, x, start.scheduler, start.noise_states)
        guidance = CFG(2.0) + PAG(1.0) + JudgeGradient(bright, 0.5, normalised=True)
        *_, last = tiny.sample(["a cat"], seeds=[0], start=start, guidance=guidance, recompute=recompute)
        found.append(torch.autograd.grad(last.latents.square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert found[0].abs().max() > 0
