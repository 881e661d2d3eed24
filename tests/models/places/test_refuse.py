"""What runs otherwise than it looks is refused by name, and the user's own pipeline stays right."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import apply_pyramid_attention_broadcast

from denoscope.editing.edit import Edit
from denoscope.models.errors import StateError
from denoscope.models.load import load
from denoscope.models.sites import site_shapes
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.attach import attached
from denoscope.probes.intervene import Intervention, scale, zero
from denoscope.probes.text_layers import smallest, text_layers
from denoscope.probes.trace import trace

OUT = "unet/mid.attn.0.0/cross_attn.out"
RUN = {"seeds": [0], "steps": 3}
BLOCK = "transformer/block.1/resid.post@img"
PAB = {
    "spatial_attention_block_skip_range": 2,
    "spatial_attention_timestep_skip_range": (-1, 1001),
    "spatial_attention_block_identifiers": ("transformer_blocks", "single_transformer_blocks"),
    "current_timestep_callback": lambda: 500,
}
CACHES = {
    "pyramid": lambda: PyramidAttentionBroadcastConfig(**PAB),
    "first block": lambda: FirstBlockCacheConfig(threshold=0.5),
    "taylor": lambda: TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1, max_order=1),
}


def shot(pipe, **more):
    generator = torch.Generator().manual_seed(0)
    size = {"height": 16, "width": 16}
    return pipe(
        "a cat", num_inference_steps=3, generator=generator, output_type="latent", **size, **more
    ).images


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_is_refused_and_the_pipeline_stays_right(name):
    pipe = tiny_families.tiny_flux()
    pipe.transformer.enable_cache(CACHES[name]())
    theirs, model = shot(pipe), load(pipe)
    with pytest.raises(StateError, match=r"transformer has a cache that skips blocks .*disable_cache\(\)"):
        trace(model, ["a cat"], **RUN)
    with pytest.raises(StateError, match="has a cache"), torch.no_grad():
        model.denoise(model.noise([0]), model.steps(2)[0], ["a cat"])
    assert torch.equal(shot(pipe), theirs)
    pipe.transformer.disable_cache()
    trace(model, ["a cat"], **RUN)


def test_in_the_users_own_call_a_cache_is_seen_or_refused():
    pipe = tiny_families.tiny_flux()
    pipe.transformer.enable_cache(CACHES["pyramid"]())
    theirs = shot(pipe)
    with attached(pipe, trace=BLOCK) as run:
        assert torch.equal(shot(pipe), theirs)
    assert run.trace[BLOCK].shape[0] == 3
    with (
        pytest.raises(RuntimeError, match="was not reached at step 1.*disable_cache"),
        attached(pipe, trace="transformer/block.1/joint_attn.out@img"),
    ):
        shot(pipe)


def test_a_cache_that_was_put_on_a_unet_by_hand():
    pipe = tiny.tiny_sd()
    config = {**PAB, "spatial_attention_block_identifiers": ("mid_block",)}
    apply_pyramid_attention_broadcast(pipe.unet, PyramidAttentionBroadcastConfig(**config))
    with pytest.raises(StateError, match="unet has a cache that skips blocks"):
        trace(load(pipe), ["a cat"], **RUN)


# fused projections ----------------------------------------------------------------------------------------

FUSED = {
    "sd": (tiny.tiny_sd, "unet/mid.attn.0.0/cross_attn.v_proj"),
    "sdxl": (tiny_families.tiny_sdxl, "unet/mid.attn.0.0/self_attn.q_proj"),
    "sd3": (tiny_families.tiny_sd3, "transformer/block.0/joint_attn.k_proj@txt"),
    "pixart-sigma": (tiny_families.tiny_pixart_sigma, "transformer/block.0/self_attn.v_proj"),
    "flux": (tiny_families.tiny_flux, "transformer/block.0/joint_attn.v_proj@img"),
    "sana": (tiny_families.tiny_sana, "transformer/block.0/cross_attn.v_proj"),
    "ldm": (tiny_families.tiny_ldm, "unet/mid.attn.0.0/cross_attn.k_proj"),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_was_fused_is_no_site_and_its_weights_take_no_edit(name):
    make, site = FUSED[name]
    pipe = make()
    model = load(pipe)
    weight = next(n for n in model.weights(site) if n.endswith("weight"))
    edit = Edit.of(model, {weight: torch.ones_like(model.parameter(weight))})
    part = getattr(pipe, site.partition("/")[0])
    if not hasattr(part, "fuse_qkv_projections"):
        pytest.skip("fuses nothing")
    part.fuse_qkv_projections()
    if not any("to_qkv" in n or "to_kv" in n for n, _ in part.named_modules()):
        pytest.skip("fuses nothing")
    for act in (
        lambda: Edit.of(model, {weight: torch.zeros_like(edit.deltas[weight])}),
        lambda: edit.apply(pipe),
    ):
        with pytest.raises(StateError, match=r"is not read: .*unfuse_qkv_projections\(\)"):
            act()
    with pytest.raises(LookupError, match="has no site"):
        trace(model, ["a cat"], interventions=[zero(site)], **RUN)
    part.unfuse_qkv_projections()
    plain = trace(model, ["a cat"], **RUN).latents
    with edit.applied(model):
        assert not torch.equal(trace(model, ["a cat"], **RUN).latents, plain)
    assert torch.equal(trace(model, ["a cat"], **RUN).latents, plain)


def test_the_query_of_cross_attention_is_not_fused():
    model = load(tiny.tiny_sd())
    model.pipe.unet.fuse_qkv_projections()
    plain = trace(model, ["a cat"], **RUN).latents
    query = "unet/mid.attn.0.0/cross_attn.q_proj"
    changed = trace(model, ["a cat"], interventions=[zero(query)], **RUN)
    assert not torch.equal(changed.latents, plain)
    with pytest.raises(LookupError):
        model.place("unet/mid.attn.0.0/self_attn.q_proj")


def test_fused_inside_an_edit_is_told():
    model = load(tiny.tiny_sd())
    weight = next(n for n in model.weights("unet/mid.attn.0.0/cross_attn.v_proj") if n.endswith("weight"))
    plain = model.parameter(weight).detach().clone()
    edit = Edit.of(model, {weight: torch.ones(16, 16)})
    with pytest.raises(StateError, match="is not read.*unfuse"), edit.applied(model):
        model.pipe.unet.fuse_qkv_projections()
    model.pipe.unet.unfuse_qkv_projections()
    edit.revert(model)
    assert torch.equal(model.parameter(weight), plain)


# computed again for gradients -----------------------------------------------------------------------------


def test_interventions_beside_gradient_checkpointing_are_refused():
    def gradient(**how):
        push = torch.ones(16, requires_grad=True)
        change = Intervention(OUT, lambda x, _: 3 * x + push)
        *_, state = model.sample(["a cat"], interventions=[change], guidance=1.0, **RUN, **how)
        state.latents.square().sum().backward()
        return push.grad

    model = load(tiny.tiny_sd())
    wanted = gradient()
    model.pipe.unet.enable_gradient_checkpointing()
    with pytest.raises(StateError, match=r"gradient checkpointing.*recompute=True"):
        gradient()
    trace(model, ["a cat"], sites=OUT, interventions=[scale(OUT, 2.0)], **RUN)  # without gradients nothing is
    model.pipe.unet.disable_gradient_checkpointing()
    torch.testing.assert_close(gradient(recompute=True), wanted)


# compiled -------------------------------------------------------------------------------------------------

INSIDE = ("up.0.attn.0.0/cross_attn.out", "up.0.attn.0.0/self_attn.q", "up.0.attn.0.0/mlp.act")


def part_of(pipe):
    """A block of the UNet that holds sites, and whose own output is one."""
    return pipe.unet.up_blocks[0].attentions[0].transformer_blocks[0]


def test_around_a_compiled_forward_hooks_act_and_inside_they_are_refused():
    model, plain = load(tiny.tiny_sd()), load(tiny.tiny_sd())
    block = part_of(model.pipe)
    block.forward = torch.compile(block.forward, backend="eager")
    edge, beside = "unet/up.0.attn.0.0/resid.post", OUT
    change = [scale(edge, 2.0), scale(beside, 3.0)]
    for act in ([], change, []):  # what was compiled has not learned of the hooks
        ours, theirs = (
            trace(m, ["a cat"], sites=[edge, beside], interventions=act, **RUN) for m in (model, plain)
        )
        torch.testing.assert_close(ours.latents, theirs.latents)
        torch.testing.assert_close(ours[edge], theirs[edge])
    for site in INSIDE:
        with pytest.raises(StateError, match=rf"unet was compiled, and unet/{site} lies inside.*forward"):
            trace(model, ["a cat"], sites=[f"unet/{site}"], **RUN)


def test_inside_of_compiled_attention_is_refused_at_its_edge_not():
    model = load(tiny.tiny_sd())
    attention = part_of(model.pipe).attn2
    attention.forward = torch.compile(attention.forward, backend="eager")
    for site in ("cross_attn.out", "cross_attn.probs"):
        with pytest.raises(StateError, match="lies inside"):
            trace(model, ["a cat"], sites=f"unet/up.0.attn.0.0/{site}", **RUN)
    trace(model, ["a cat"], sites="unet/up.0.attn.0.0/mlp.out", **RUN)


def test_a_compiled_call_holds_its_own_hooks_so_its_edge_is_refused():
    model = load(tiny.tiny_sd())
    part_of(model.pipe).compile(backend="eager")
    with pytest.raises(StateError, match="resid.post lies inside"):
        trace(model, ["a cat"], sites="unet/up.0.attn.0.0/resid.post", **RUN)
    trace(model, ["a cat"], sites=OUT, **RUN)


def test_what_only_looks_looks_uncompiled():
    """Shapes of sites, and layers that read text: found by hooks inside, also of what ran compiled before."""
    model, plain = load(tiny.tiny_sd()), load(tiny.tiny_sd())
    part_of(model.pipe).compile(backend="eager")
    small = smallest(model)
    with torch.no_grad():
        small.denoise(small.noise([0, 1, 0]), small.steps(4)[0], ["a cat"] * 3)
    assert [layer.weight for layer in text_layers(model)] == [layer.weight for layer in text_layers(plain)]
    assert site_shapes(model) == site_shapes(plain)
    with pytest.raises(StateError, match="lies inside"):  # only while it looks
        trace(model, ["a cat"], sites=f"unet/{INSIDE[0]}", **RUN)
