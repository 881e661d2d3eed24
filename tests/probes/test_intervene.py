"""Interventions: no-ops change nothing, rows and branches are respected, nothing is left behind."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_sdxl
from denoscope.probes.intervene import Intervention, intervening, mean, patch, resample, scale, zero
from denoscope.probes.trace import trace

MID = Site("unet/mid.attn.0.0/resid.post")
PROMPTS, RUN = ["a cat", "a red dog"], {"seeds": [0, 1], "steps": 3}


def hooks(model):
    modules = [m for part in model.components.values() for m in part.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@pytest.fixture(scope="module")
def plain(tiny):
    return trace(tiny, PROMPTS, sites="**", **RUN)


def test_a_no_op_at_every_site_changes_nothing(tiny, plain):
    same = [Intervention(s, lambda x, _: x.clone()) for s in tiny.sites() if not s.kind.endswith("probs")]
    assert torch.equal(trace(tiny, PROMPTS, interventions=same, **RUN).latents, plain.latents)


def test_a_no_op_at_the_probabilities_changes_only_rounding(tiny, plain):
    same = [Intervention(s, lambda x, _: x.clone()) for s in tiny.sites("**/*.probs")]
    changed = trace(tiny, PROMPTS, interventions=same, **RUN).latents
    torch.testing.assert_close(
        changed, plain.latents, atol=1e-5, rtol=1e-4
    )  # P'v in place of the fused kernel


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_every_site_can_be_changed(tiny, every):
    """Doubling any one site moves the picture; q, k, v reach it through the fused call."""
    once = {**RUN, "seeds": [0], "steps": 1}
    plain = trace(tiny, PROMPTS[:1], **once).latents
    sites = tiny.sites()
    for site in sites if every else {s.kind: s for s in sites}.values():  # the last of each kind
        moved = trace(tiny, PROMPTS[:1], interventions=[scale(site, 2.0)], **once).latents
        assert not torch.equal(moved, plain), site


@given(
    steps=st.sets(st.integers(0, 2), min_size=1),
    branch=st.sampled_from(["cond", "uncond", None]),
    rows=st.one_of(st.none(), st.sampled_from([(0,), (1,), (1, 0)])),
)
def test_steps_branch_and_rows_are_respected(tiny, plain, steps, branch, rows):
    seen = []
    look = Intervention(
        MID, lambda x, c: seen.append((c.step.index, c.branch, x.clone())), When(steps, branch, rows)
    )
    with torch.no_grad(), intervening(tiny, look):
        list(tiny.sample(PROMPTS, **RUN))
    picked = rows or (0, 1)
    branches = [branch] if branch else ["uncond", "cond"]
    assert [(i, b) for i, b, _ in seen] == [(i, b) for i in sorted(steps) for b in branches]
    assert all(len(x) == len(picked) for _, _, x in seen)
    for i, where, x in seen:
        assert torch.equal(x, plain[MID][i][list(picked)]) == (where == "cond")


@pytest.mark.parametrize(
    "site", [MID, "unet/mid.attn.0.0/cross_attn.probs", "unet/mid.attn.0.0/cross_attn.v"]
)
def test_the_other_branch_is_untouched(tiny, site):
    keep = When(branch="cond")
    a = trace(tiny, PROMPTS, sites=[MID], when=keep, **RUN)
    b = trace(tiny, PROMPTS, sites=[MID], when=keep, interventions=[zero(site, When({0}, "uncond"))], **RUN)
    assert torch.equal(a[MID][0], b[MID][0]) and not torch.equal(a[MID][1], b[MID][1])


def test_one_sample_can_be_changed_alone(tiny, plain):
    changed = trace(tiny, PROMPTS, interventions=[zero(MID).on(1)], **RUN).latents
    assert torch.equal(changed[0], plain.latents[0]) and not torch.equal(changed[1], plain.latents[1])


def test_nothing_happens_before_its_step(tiny, plain):
    late = trace(tiny, PROMPTS, sites=[MID], interventions=[zero(MID, When({2}))], **RUN)
    assert torch.equal(late[MID][:2], plain[MID][:2]) and late[MID][2].abs().max() == 0


def test_interventions_at_one_site_act_in_order(tiny):
    add, double = Intervention(MID, lambda x, _: x + 1), scale(MID, 2.0)
    a = trace(tiny, PROMPTS, sites=[MID], interventions=[zero(MID), add, double], **RUN)
    b = trace(tiny, PROMPTS, sites=[MID], interventions=[zero(MID), double, add], **RUN)
    assert (a[MID] == 2).all() and (b[MID] == 1).all()


def test_editing_probabilities_is_recomputed_by_hand(tiny):
    """P' v, written out, at a site whose inputs are untouched: the first one of the first step."""
    stem = str(tiny.sites("unet/**/cross_attn.probs")[0]).removesuffix("probs")
    even = Intervention(stem + "probs", lambda p, _: torch.full_like(p, 1 / p.shape[-1]))
    run = trace(tiny, PROMPTS, sites=[stem + "v", stem + "z"], interventions=[even], seeds=[0, 1], steps=1)
    expected = run[stem + "v"].mean(-2, keepdim=True).expand_as(run[stem + "z"])
    torch.testing.assert_close(run[stem + "z"], expected)


def test_patching_every_site_restores_the_other_run(tiny, plain):
    put = [patch(s, plain) for s in tiny.sites("unet/**/resid.post")] + [patch("unet/out/eps", plain)]
    start = trace(tiny, PROMPTS[::-1], interventions=put, guidance=1, **RUN)
    clean = trace(tiny, PROMPTS, guidance=1, sites="unet/out/eps", **RUN)
    put = [patch("unet/out/eps", clean)]
    assert not torch.equal(start.latents, clean.latents)
    assert torch.equal(
        trace(tiny, PROMPTS[::-1], guidance=1, interventions=put, **RUN).latents, clean.latents
    )


def test_patching_the_final_text_states_gives_the_other_prompt(tiny, plain):
    put = patch("text_encoder/out/embeds", plain)
    assert torch.equal(trace(tiny, ["x", "y"], interventions=[put], **RUN).latents, plain.latents)


def test_a_change_at_the_layer_that_the_denoiser_reads_is_read_at_every_call():
    """XL reads the last layer but one, which transformers records by a hook of its own after a first call."""
    model = load(tiny_sdxl())
    with torch.no_grad():
        for _ in range(3):
            with intervening(model, scale("text_encoder/layer.0/resid.post", 2.0)):
                changed = model.encode(["a cat"])[0].embeds
            kept = model.encode(["a cat"])[0].embeds
            own = model.components["text_encoder"].config.hidden_size
            torch.testing.assert_close(changed[:, :own], 2 * kept[:, :own])
            assert torch.equal(changed[:, own:], kept[:, own:])


def test_patching_some_tokens_leaves_the_others(tiny, plain):
    put = patch("text_encoder/layer.0/mlp.out", plain, tokens=[1, 2])
    run = trace(tiny, ["dog", "dog"], sites=[put.site], interventions=[put], **RUN)
    alone = trace(tiny, ["dog", "dog"], sites=[put.site], **RUN)
    assert torch.equal(run[put.site][:, 1:3], plain[put.site][:, 1:3])
    assert torch.equal(run[put.site][:, 3:], alone[put.site][:, 3:])


def test_mean_and_resample_take_what_the_other_run_had(tiny, plain):
    run = trace(tiny, PROMPTS, sites=[MID], interventions=[mean(MID, plain)], **RUN)
    torch.testing.assert_close(run[MID], plain[MID].mean(1, keepdim=True).expand_as(plain[MID]))
    run = trace(tiny, PROMPTS, sites=[MID], interventions=[resample(MID, plain, seed=1)], **RUN)
    for step in range(3):
        for row in run[MID][step]:
            assert any(torch.equal(row, other) for other in plain[MID][step])


def test_resample_draws_a_sample_for_each_row_and_keeps_it(tiny):
    """Six rows, five donors of constant activation: who gave to whom is read off, and so is the step."""
    donors, steps = torch.arange(5.0), torch.tensor([0.0, 10.0])
    values = (steps[:, None] + donors)[:, :, None, None].expand(-1, -1, 16, 16)

    def drawn(seed):
        put = resample(MID, values, seed=seed)
        run = trace(tiny, ["a cat"] * 6, sites=[MID], interventions=[put], seeds=range(6), steps=2)
        first, second = run[MID][:, :, 0, 0]
        assert torch.equal(run[MID], run[MID][:, :, :1, :1].expand_as(run[MID]))
        assert torch.equal(second, first + 10)  # the same donor at every step, at its own step
        return tuple(first.tolist())

    found = [drawn(seed) for seed in (0, 0, 1, 2)]
    assert found[0] == found[1] and len(set(found)) == 3
    assert {d for row in found for d in row} == set(donors.tolist())
    assert all(len(set(row)) > 2 for row in found)


@pytest.mark.parametrize(
    "site", [MID, Site("unet/mid.attn.0.0/cross_attn.probs"), Site("unet/up.0.res.0/resid.pre")]
)
def test_no_hook_survives_an_error(tiny, site):
    with pytest.raises(ZeroDivisionError):
        trace(tiny, PROMPTS, interventions=[Intervention(site, lambda x, _: 1 / 0)], **RUN)
    assert hooks(tiny) == 0 and tiny.call is None
    q = torch.randn(1, 1, 2, 4)  # and no tap sits on the stack: the fused call is the plain one again
    assert torch.nn.functional.scaled_dot_product_attention(q, q, q).shape == q.shape


def test_no_hook_survives_a_wrong_later_site(tiny):
    with (
        pytest.raises(LookupError, match="did you mean"),
        intervening(tiny, zero(MID), zero("unet/mid.attn.0.0/resid.pots")),
    ):
        pass
    assert hooks(tiny) == 0


def test_no_hook_survives_a_run_that_is_dropped(tiny):
    with torch.no_grad(), intervening(tiny, zero(MID)):
        next(tiny.sample(PROMPTS, **RUN))
    assert hooks(tiny) == 0 and tiny.call is None


def test_a_wrong_shape_is_refused(tiny):
    with pytest.raises(ValueError, match=r"returned \(1, 16, 16\), expected \(2, 16, 16\)"):
        trace(tiny, PROMPTS, interventions=[Intervention(MID, lambda x, _: x[:1])], **RUN)


def test_steps_in_a_text_encoder_are_refused(tiny):
    with (
        pytest.raises(ValueError, match="which has no steps"),
        intervening(tiny, zero("text_encoder/layer.0/mlp.out", When({0}))),
    ):
        pass


def test_a_site_reached_outside_a_run_is_an_error(tiny):
    with torch.no_grad(), pytest.raises(RuntimeError, match="outside a run"), intervening(tiny, zero(MID)):
        tiny.predict(tiny.noise([0]), tiny.steps(2)[0], tiny.encode(["a"]))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (When({7}), "steps 0 to 2"),
        (When(rows=(2,)), "samples 0 to 1"),
    ],
)
def test_an_intervention_that_would_never_act_is_an_error(tiny, when, message):
    with pytest.raises(ValueError, match=message):
        trace(tiny, PROMPTS, interventions=[zero(MID, when)], **RUN)


def test_the_unconditional_branch_of_an_unguided_run_is_an_error(tiny):
    with pytest.raises(ValueError, match="set guidance above 1"):
        trace(tiny, PROMPTS, interventions=[zero(MID, When(branch="uncond"))], guidance=1, **RUN)


def test_a_replaced_module_is_followed():
    model = load(tiny_sd())
    before = trace(model, PROMPTS, sites=[MID], **RUN)
    block = model.pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    block.attn2.to_out[0] = copy.deepcopy(block.attn2.to_out[0])  # as loading a LoRA does
    after = trace(model, PROMPTS, sites=[MID], **RUN)
    out = "unet/mid.attn.0.0/cross_attn.out"
    assert model.module(out) is block.attn2.to_out[0] and torch.equal(after[MID], before[MID])
    changed = trace(model, PROMPTS, interventions=[zero(out)], **RUN)
    assert not torch.equal(changed.latents, before.latents)


def test_a_component_that_was_exchanged_is_followed():
    model, other = load(tiny_sd()), load(tiny_sd(seed=1))
    model.pipe.unet = other.pipe.unet
    other.pipe.text_encoder = model.pipe.text_encoder
    run, theirs = (trace(m, PROMPTS, sites=[MID], **RUN) for m in (model, other))
    assert model.components["unet"] is other.pipe.unet and torch.equal(run[MID], theirs[MID])


def test_a_compiled_model_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(tiny.denoiser, "_compiled_call_impl", lambda: None)
    with pytest.raises(RuntimeError, match="compiled"), intervening(tiny, zero(MID)):
        pass


def test_eager_attention_is_noticed(tiny):
    from diffusers.models.attention_processor import AttnProcessor

    attention = tiny.module("unet/mid.attn.0.0/cross_attn.probs")
    fused = attention.processor
    attention.set_processor(AttnProcessor())
    try:
        with pytest.raises(RuntimeError, match="did not use fused attention"):
            trace(tiny, PROMPTS, sites="unet/mid.attn.0.0/cross_attn.probs", **RUN)
    finally:
        attention.set_processor(fused)
    assert hooks(tiny) == 0


def test_patching_from_steps_that_were_not_kept_is_an_error(tiny):
    some = trace(tiny, PROMPTS, sites=[MID], when=When({0}), **RUN)
    with pytest.raises(LookupError, match="no activation .* at step 1"):
        trace(tiny, PROMPTS, interventions=[patch(MID, some)], **RUN)


# tokens, heads and times ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["q", "k", "v", "z", "out"])
def test_tokens_and_heads_go_by_the_layout_of_the_site(tiny, kind):
    site, steps = f"unet/mid.attn.0.0/cross_attn.{kind}", 2
    run = {"seeds": [0], "steps": steps}
    other = trace(tiny, ["a dog"], sites=site, **run)
    plain = trace(tiny, ["a cat"], sites=site, **run)
    part = {"tokens": [2]} if kind == "out" else {"tokens": [2, 3], "heads": [1]}
    seen = trace(tiny, ["a cat"], sites=site, interventions=[patch(site, other, When({0}), **part)], **run)
    wanted = plain[site][0].clone()
    if kind == "out":
        wanted[:, 2] = other[site][0][:, 2]
    else:
        wanted[:, 1, 2:4] = other[site][0][:, 1, 2:4]
    assert torch.equal(seen[site][0], wanted) and not torch.equal(other[site][0], plain[site][0])


def test_tokens_and_heads_that_a_site_does_not_have_are_refused(tiny):
    run = {"prompts": ["a cat"], "seeds": [0], "steps": 1}
    block = "unet/mid.attn.0.0"
    for site, part, message in (
        (f"{block}/cross_attn.k", {"tokens": [99]}, r"tokens \[99\] are not all at .*has tokens 0 to 31"),
        (f"{block}/cross_attn.k", {"heads": [2]}, r"heads \[2\] are not all at .*has heads 0 to 1"),
        (f"{block}/cross_attn.out", {"heads": [0]}, r"axes \('token', 'channel'\), none of heads"),
        (f"{block}/cross_attn.probs", {"tokens": [2]}, r"'query', 'key'\), none of tokens"),
        ("unet/mid.res.0/resid.post", {"tokens": [2]}, "none of tokens"),
    ):
        values = trace(tiny, sites=site, **run)
        with pytest.raises(ValueError, match=message):
            trace(tiny, interventions=[patch(site, values, **part)], **run)


@pytest.mark.parametrize("make", [patch, mean, resample])
def test_values_of_another_time_are_refused(tiny, make):
    site = "unet/mid.attn.0.0/cross_attn.out"
    long = trace(tiny, ["a cat"], seeds=[0], steps=10, sites=site)
    with pytest.raises(
        ValueError, match=r"at step 1 are of time \d+, but in this run that step is at time \d+"
    ):
        trace(tiny, ["a cat"], seeds=[0], steps=4, interventions=[make(site, long, when=When({1}))])
    trace(tiny, ["a cat"], seeds=[0], steps=10, interventions=[make(site, long, when=When({1}))])


def test_rows_of_values_that_do_not_fit_are_refused(tiny):
    for site in ("unet/mid.attn.0.0/cross_attn.out", "text_encoder/layer.0/self_attn.out"):
        two = trace(tiny, ["a cat", "a dog"], seeds=[0, 1], steps=2, sites=site)
        with pytest.raises(ValueError, match="do not fit .*one row for each that is, or one for all"):
            trace(tiny, ["a cat"] * 3, seeds=[0, 1, 2], steps=2, interventions=[patch(site, two)])
        with pytest.raises(ValueError, match=r"rows \(7,\) are not all among the run's samples"):
            trace(tiny, ["a cat"], seeds=[0], steps=2, interventions=[zero(site, When(rows=(7,)))])


def test_a_dictionary_of_tensors_patches_as_its_tensors_do(tiny, plain):
    site = next(s for s in tiny.sites() if s.kind == "cross_attn.out")
    other = 2 * plain[site]
    given = [patch(site, values) for values in ({site: other}, other)]
    one, two = (trace(tiny, PROMPTS, interventions=[i], **RUN).latents for i in given)
    assert torch.equal(one, two) and not torch.equal(one, plain.latents)
