"""Observers: the parts of one call together, equal to what the network computes, and nobody notices."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from denoscope.models.load import load
from denoscope.models.places.attention import attention_probs
from denoscope.models.places.hooks import before_calls
from denoscope.models.run.context import When
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, intervening, scale
from denoscope.probes.observe import Observer, suspended
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

STEM = "unet/mid.attn.0.0"
RUN = {"seeds": [0, 1], "steps": 2}
PROMPTS = ["a cat", "a dog"]


def parts_of(attention, *kinds):
    return {kind: f"{attention}.{kind}" for kind in kinds}


def attentions(model, name):
    kinds = ("self", "cross") if name == "sd" else ("self",) if name.startswith("pixart") else ("joint",)
    return [
        str(s).removesuffix(".q")
        for kind in kinds
        for s in model.sites(f"*/*/{kind}_attn.q")
        if s.component in ("unet", "transformer")
    ]


@pytest.mark.parametrize("name", ["sd", "pixart-alpha", "sd3", "flux-dev"])
def test_q_k_v_of_one_call_give_its_probabilities_and_output(name):
    model, found = opened(name), {}
    wanted = attentions(model, name)

    def look(attention, parts, _):
        probs = attention_probs(parts["q"], parts["k"])
        found.setdefault(attention, []).append((probs, probs @ parts["v"]))

    watch = [Observer(parts_of(a, "q", "k", "v"), lambda parts, c, a=a: look(a, parts, c)) for a in wanted]
    sites = [f"{a}.{kind}" for a in wanted for kind in ("probs", "z")]
    run = trace(model, FAMILIES[name].texts, seeds=[0, 1, 2], steps=2, sites=sites, interventions=watch)
    plain = trace(model, FAMILIES[name].texts, seeds=[0, 1, 2], steps=2)
    assert torch.equal(run.latents, plain.latents)
    for attention in wanted:
        assert len(found[attention]) == 2  # once for each step
        probs, z = (torch.stack(x) for x in zip(*found[attention], strict=True))
        torch.testing.assert_close(probs, run[f"{attention}.probs"])
        torch.testing.assert_close(z, run[f"{attention}.z"], atol=1e-5, rtol=1e-4)


def test_a_sub_module_is_called_with_its_hooks_suspended(tiny):
    """The output projection, called in the observer, gives what the network's own call gives."""
    out, seen, calls = f"{STEM}/cross_attn.out", [], []
    project = tiny.module(out)

    def look(parts, _):
        joined = parts["z"].transpose(1, 2).flatten(2)
        seen.append(project(joined))

    watch = [
        Observer({"z": f"{STEM}/cross_attn.z"}, look),
        Intervention(out, lambda x, _: calls.append(len(x))),
    ]
    run = trace(tiny, PROMPTS, **RUN, sites=out, interventions=watch)
    assert len(calls) == 2  # its own calls alone
    torch.testing.assert_close(torch.stack(seen), run[out])
    assert torch.equal(run.latents, trace(tiny, PROMPTS, **RUN).latents)


def test_a_whole_attention_is_called_again_inside_its_own_call(tiny):
    """Its tap is on just then, and must not see the second call."""
    block, seen = tiny.module(f"{STEM}/resid.pre"), []

    def look(parts, _):
        again = block.attn1(block.norm1(parts["x"]))
        seen.append((again - parts["out"]).abs().max())

    watch = Observer({"x": f"{STEM}/resid.pre", "out": f"{STEM}/self_attn.out"}, look)
    run = trace(tiny, PROMPTS, **RUN, sites=f"{STEM}/self_attn.*", interventions=[watch])
    plain = trace(tiny, PROMPTS, **RUN, sites=f"{STEM}/self_attn.*")
    assert len(seen) == 2 and max(seen) < 1e-5
    assert all(torch.equal(run[s], plain[s]) for s in plain) and torch.equal(run.latents, plain.latents)


def advanced(block, temb, c, parts, layout):
    """Text rows c after a double block of Flux, reading the picture and themselves; and what they read."""
    attn, heads = block.attn, parts["k"].shape[1]
    normed, gate, shift, scaling, gate_mlp = block.norm1_context(c, emb=temb)

    def split(x):
        return x.unflatten(-1, (heads, -1))

    q = attn.norm_added_q(split(attn.add_q_proj(normed))).transpose(1, 2)  # no rotation at position 0
    k = attn.norm_added_k(split(attn.add_k_proj(normed))).transpose(1, 2)
    v = split(attn.add_v_proj(normed)).transpose(1, 2)
    keys = torch.cat([parts["k"][:, :, layout.picture], k], 2)
    values = torch.cat([parts["v"][:, :, layout.picture], v], 2)
    z = F.scaled_dot_product_attention(q, keys, values)
    c = c + gate[:, None] * attn.to_add_out(z.transpose(1, 2).flatten(2))
    hidden = block.norm2_context(c) * (1 + scaling[:, None]) + shift[:, None]
    return c + gate_mlp[:, None] * block.ff_context(hidden), z


def test_a_passenger_stream_through_joint_attention_leaves_the_picture_as_it_is():
    """Rows that ride beside the text equal it if they are the text's own (Helbling et al. 2025)."""
    model, text = opened("flux-dev"), FAMILIES["flux-dev"].texts
    stem = "transformer/block.0"
    attention, block = f"{stem}/joint_attn", model.module(f"{stem}/resid.pre@img")
    layout, told, found = model.layout(f"{attention}.k"), {}, []

    def ride(parts, _):
        found.append((parts["txt"], *advanced(block, told["temb"], parts["txt"], parts, layout)))

    sites = {"txt": f"{stem}/resid.pre@txt", **parts_of(attention, "k", "v", "z")}
    kept = [f"{stem}/resid.post@txt", f"{stem}/mlp.out@txt", f"{attention}.z"]
    run = {"seeds": [0, 1, 2], "steps": 2, "sites": kept}
    with before_calls(block, lambda _, kwargs: told.update(kwargs)):
        ridden = trace(model, text, **run, interventions=[Observer(sites, ride)])
    plain = trace(model, text, **run)
    assert torch.equal(ridden.latents, plain.latents)
    assert all(torch.equal(ridden[s], plain[s]) for s in kept)
    before, after, z = (torch.stack(x) for x in zip(*found, strict=True))
    torch.testing.assert_close(after, plain[kept[0]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(z, plain[kept[2]][..., layout.text, :], atol=1e-5, rtol=1e-4)
    assert (after - before).abs().max() > 0.01


def test_rows_and_steps_are_those_of_when(tiny):
    seen = []
    look = Observer(
        parts_of(f"{STEM}/self_attn", "q", "k"),
        lambda parts, _: seen.append({n: len(x) for n, x in parts.items()}),
        When(steps={1}, rows=(1,)),
    )
    trace(tiny, PROMPTS, **RUN, guidance=4.0, interventions=[look])
    assert seen == [{"q": 1, "k": 1}]


def test_both_branches_are_seen(tiny):
    rows = []
    look = Observer(
        {"x": f"{STEM}/resid.pre", "y": f"{STEM}/resid.post"}, lambda p, _: rows.append(len(p["x"]))
    )
    trace(tiny, PROMPTS, **RUN, guidance=4.0, interventions=[look])
    one = sum(rows)
    rows.clear()
    both = Observer(look.sites, look.fn, When(branch=None))
    trace(tiny, PROMPTS, **RUN, guidance=4.0, interventions=[both])
    assert (one, sum(rows)) == (4, 8)


def test_it_sees_what_interventions_before_it_made(tiny):
    seen = []
    site = f"{STEM}/cross_attn.out"
    look = Observer({"x": site}, lambda parts, _: seen.append(parts["x"].clone()))
    trace(tiny, PROMPTS, **RUN, interventions=[look, scale(site, 2.0, When(steps={0})), look])
    torch.testing.assert_close(seen[1], 2 * seen[0])


def test_text_encoders_are_observed_too(tiny):
    seen = []
    sites = {"in": "text_encoder/layer.0/resid.pre", "out": "text_encoder/layer.0/resid.post"}
    with intervening(tiny, Observer(sites, lambda parts, _: seen.append(sorted(parts)))):
        tiny.encode(["a cat"])
    assert seen == [["in", "out"]]


# failures --------------------------------------------------------------------------------------------------


def test_sites_that_did_not_run_are_named():
    model = load(tiny_sd())
    unet = model.pipe.unet
    unet.mid_block.forward = lambda hidden, *_, **__: hidden
    sites = {"stem": "unet/in/conv.out", "z": f"{STEM}/self_attn.z"}
    with pytest.raises(
        RuntimeError, match=rf"{STEM}/self_attn.z was not reached at step 0, although unet was"
    ):
        trace(model, ["a cat"], seeds=[0], steps=1, interventions=[Observer(sites, lambda *_: None)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


def test_a_failing_function_leaves_nothing_behind(tiny):
    def fails(*_):
        raise ZeroDivisionError

    look = Observer(parts_of(f"{STEM}/self_attn", "q", "k"), fails)
    with pytest.raises(ZeroDivisionError):
        trace(tiny, PROMPTS, **RUN, interventions=[look])


def test_an_observer_that_wants_to_change_something_is_refused(tiny):
    look = Observer({"x": f"{STEM}/resid.pre"}, lambda parts, _: parts["x"])
    with pytest.raises(
        TypeError, match="changes nothing, so its function returns None; it returned a Tensor"
    ):
        trace(tiny, PROMPTS, **RUN, interventions=[look])


def test_a_tensor_that_is_overwritten_meanwhile_is_refused(tiny):
    site = f"{STEM}/resid.pre"
    look = Observer({"x": site, "y": f"{STEM}/resid.post"}, lambda *_: None)

    def overwrite(x, _):
        x.mul_(2)

    with pytest.raises(RuntimeError, match=f"tensor at {site} was overwritten in place"):
        trace(tiny, PROMPTS, **RUN, interventions=[look, Intervention(site, overwrite)])


def test_sites_that_do_not_run_together_are_refused(tiny):
    with pytest.raises(ValueError, match=r"got 2 sites in \['text_encoder', 'unet'\]"):
        Observer({"a": "text_encoder/out/embeds", "b": f"{STEM}/resid.pre"}, lambda *_: None)
    with pytest.raises(ValueError, match="got 0 sites in none"):
        Observer({}, lambda *_: None)
    with pytest.raises(LookupError, match="has no site 'unet/mid.attn.9/resid.pre'"):
        trace(
            tiny,
            PROMPTS,
            **RUN,
            interventions=[Observer({"a": "unet/mid.attn.9/resid.pre"}, lambda *_: None)],
        )
    with pytest.raises(ValueError, match="has no steps"):
        look = Observer({"a": "text_encoder/out/embeds"}, lambda *_: None, When(steps={0}))
        trace(tiny, PROMPTS, **RUN, interventions=[look])


def test_suspended_hooks_come_back(tiny):
    module, seen = tiny.module(f"{STEM}/cross_attn.out"), []
    x = torch.zeros(1, 16)
    with intervening(tiny, Intervention(f"{STEM}/cross_attn.out", lambda x, _: seen.append(1))):
        with suspended(tiny.denoiser):
            module(x)
        assert not seen
        with pytest.raises(RuntimeError, match="outside a run"):
            module(x)
        with pytest.raises(KeyError), suspended(tiny.denoiser):
            raise KeyError
        with pytest.raises(RuntimeError, match="outside a run"):
            module(x)
