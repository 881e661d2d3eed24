"""The nnsight view gives the tensors our own traces keep, to the bit."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from denoscope.models.load import load
from denoscope.models.places.hooks import hooked
from denoscope.models.run.context import When
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_ddpm, tiny_sd
from denoscope.probes.intervene import scale
from denoscope.probes.nnsight import view
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, shortened

INSIDE = {"q", "k", "v", "probs", "z"}
RUN = {"prompts": ["a red cat", "dog"], "seeds": [3, 4], "steps": 3, "guidance": 4.0}
PLAIN = {"prompts": ["", ""], "seeds": [3, 4], "steps": 3, "guidance": 1.0}


@pytest.fixture(scope="module")
def model():
    """Not the session's model: wrapping stays."""
    return load(tiny_sd())


@pytest.fixture(scope="module")
def seen(model):
    return view(model)


def carried(model, pattern="**"):
    return [s for s in model.sites(pattern) if s.kind.rpartition(".")[2] not in INSIDE]


def through_nnsight(seen, sites, *, prompts, steps, branch="cond", **settings):
    """Capture every site at every step; nnsight wants them in the order in which they happen."""
    with torch.no_grad(), seen.trace(prompts, steps=steps, **settings) as tracer:
        found = {site: [] for site in sites}.save()
        for _ in tracer.iter[:steps]:
            for site in sites:
                found[site].append(seen.read(site, branch).clone())
        latents = tracer.result.save()
    return {site: torch.stack(x) for site, x in found.items()}, latents


# exact ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", "pixart-sigma", "sd3", "flux-dev", "sana", "dit", "ldm"])
def test_every_family_has_the_view(name):
    """A fresh model for each: wrapping stays."""
    model = shortened(load(FAMILIES[name].make()))
    run = {"prompts": list(FAMILIES[name].texts[:2]), "seeds": [3, 4], "steps": 2, "guidance": 4.0}
    order = in_order(model, run, carried(model, f"{model.input_site.component}/**"))
    ours = trace(model, **run, sites=order)
    theirs, latents = through_nnsight(view(model), order, **run)
    assert torch.equal(latents, ours.latents)
    for site in order:
        assert torch.equal(theirs[site], ours[site]), site


@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_denoiser_sites_are_equal_to_the_bit(model, seen, branch):
    order = in_order(model, RUN, carried(model, "unet/**"))
    ours = trace(model, **RUN, sites=order, when=When(branch=branch))
    theirs, latents = through_nnsight(seen, order, branch=branch, **RUN)
    assert len(order) > 60
    for site in order:
        assert theirs[site].shape[:2] == (3, 2)
        assert torch.equal(theirs[site], ours[site]), site
    assert torch.equal(latents, ours.latents)


@pytest.mark.parametrize("make", [tiny_ddim, tiny_ddpm])
def test_unconditional_models(make):
    model = load(make())
    order = in_order(model, PLAIN, carried(model))
    ours = trace(model, **PLAIN, sites=order)
    theirs, latents = through_nnsight(view(model), order, **PLAIN)
    assert len(order) > 20
    assert all(torch.equal(theirs[s], ours[s]) for s in order)
    assert torch.equal(latents, ours.latents)


def test_text_encoder_sites(model, seen):
    order = in_order(model, RUN, carried(model, "text_encoder/**"))
    ours = trace(model, **RUN, sites=order)
    settings = {**RUN}
    with torch.no_grad(), seen.trace(settings.pop("prompts"), **settings):
        found = {site: seen.read(site).clone() for site in order}.save()
    assert len(order) > 15
    assert all(torch.equal(found[s], ours[s]) for s in order)


def in_order(model, run, sites):
    """The order in which the sites are reached, seen by our own hooks."""
    seen = []
    with torch.no_grad(), hooked(model, [(s, lambda _, s=s: seen.append(s)) for s in sites]):
        list(model.sample(run["prompts"], seeds=run["seeds"], steps=1, guidance=1))
    assert set(seen) == set(sites)
    return list(dict.fromkeys(seen))


def test_an_intervention_gives_the_same_picture_both_ways(model, seen):
    site = "unet/mid.attn.0.0/cross_attn.out"
    ours = trace(model, **RUN, interventions=[scale(site, 0.0, When(branch=None))])
    plain = trace(model, **RUN)
    settings = {**RUN}
    with torch.no_grad(), seen.trace(settings.pop("prompts"), **settings) as tracer:
        for _ in tracer.iter[:3]:
            seen.site(site).output = seen.site(site).output * 0.0
        latents = tracer.result.save()
    assert torch.equal(latents, ours.latents)
    assert not torch.equal(latents, plain.latents)


def test_our_own_traces_stay_the_same_after_wrapping():
    before, wrapped = load(tiny_sd()), load(tiny_sd())
    view(wrapped)
    sites = ["unet/mid.attn.0.0/*", "text_encoder/layer.0/*"]
    a, b = (trace(m, **RUN, sites=sites) for m in (before, wrapped))
    assert torch.equal(a.latents, b.latents)
    assert list(a) == list(b) and all(torch.equal(a[s], b[s]) for s in a)


def test_the_example_of_the_page_runs_from_a_file(tmp_path):
    """nnsight needs source code, so the page's examples cannot be run from a string."""
    page = (Path(__file__).parents[2] / "docs" / "nnsight.md").read_text()
    code = re.findall(r"^```python[^\n]*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text("\n".join(code))
    names = runpy.run_path(str(tmp_path / "page.py"))
    assert len(code) == 2
    assert len(names["kept"]) == 4 and names["latents"].shape[0] == 1


# there and back ---------------------------------------------------------------------------------------


@pytest.mark.stress
def test_site_and_envoy_are_two_names_of_one_module(model, seen):
    for site in carried(model):
        envoy = seen.site(site)
        assert envoy._module is model.module(site)
        assert site in seen.sites(envoy)


def test_one_module_may_carry_several_sites(seen):
    found = seen.sites(seen.site("unet/mid.attn.0.0/resid.pre"))
    assert found == (Site("unet/mid.attn.0.0/resid.pre"), Site("unet/mid.attn.0.0/resid.post"))
    assert seen.sites(seen.vae) == ()
    attention = seen.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    assert seen.sites(attention) == ()  # q, k, v, probs and z lie inside its one call


# failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(INSIDE))
def test_the_inside_of_attention_is_refused(seen, kind):
    with pytest.raises(
        ValueError, match=rf"mid.attn.0.0/cross_attn.{kind} lies inside a fused attention call"
    ):
        seen.site(f"unet/mid.attn.0.0/cross_attn.{kind}")


def test_unknown_sites_name_near_misses(seen):
    with pytest.raises(LookupError, match=r"did you mean 'unet/mid.attn.0.0/cross_attn.out'"):
        seen.site("unet/mid.attn.0.0/cross_attn.outt")


def test_a_branch_that_is_not_there_is_named(seen):
    with (
        pytest.raises(LookupError, match=r"has rows of \['cond'\], none of 'uncond'"),
        torch.no_grad(),
        seen.trace(["a cat"], seeds=[0], steps=1, guidance=1.0),
    ):
        seen.read("unet/mid.attn.0.0/cross_attn.out", "uncond").save()
