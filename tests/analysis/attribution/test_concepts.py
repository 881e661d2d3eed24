"""Concept maps: concepts read as the text does, change nothing, and are found where they were planted."""

from functools import partial

import numpy as np
import pytest
import torch

from denoscope.analysis import ConceptMaps, concept_maps, word_maps
from denoscope.analysis.attribution.passenger import Passengers, double_blocks
from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.run.prediction import scales
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes.intervene import Intervention, scale
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

JOINT = ["sd3", "flux-dev", "flux-schnell"]
RUN = {"seeds": [3], "steps": 2}
WORDS = ["cat", "red dog"]
joint = pytest.mark.parametrize("name", JOINT)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def maps_of(name, concepts=WORDS, prompts=("a red cat",), **more):
    given = {"seeds": list(range(len(prompts))), "steps": 2, **more}
    return concept_maps(opened(name, FAMILIES[name].size), list(prompts), concepts, **given)


def scores_of(model, passengers, prompts, sites, **run):
    """The passengers' scores at each block and step, [row, head, concept, place]."""
    kept = {}
    watch = passengers.probes(sites, lambda s, x, c: kept.__setitem__((s, c.step.index), x), When())
    trace(model, prompts, interventions=watch, **run)
    return kept


# exact ------------------------------------------------------------------------------------------------


@joint
def test_the_prompts_own_tokens_ride_as_the_text_itself(name):
    """Then o_c is what attention gives the text's rows, in every double block."""
    model = opened(name, FAMILIES[name].size)
    prompt = model.encode(["a red cat"])[0]
    n, sites = len(prompt.embeds), double_blocks(model)
    found = scores_of(
        model, Passengers(model, prompt.embeds, [[i] for i in range(n)]), ["a red cat"], sites, **RUN
    )
    z = [Site(str(s).replace("probs", "z")) for s in sites]
    run = trace(model, ["a red cat"], sites=z, **RUN)
    for site, at in zip(sites, z, strict=True):
        layout = model.layout(at)
        for step in range(2):
            x = run[at][step]
            expected = x[:, :, layout.text] @ x[:, :, layout.picture].mT
            torch.testing.assert_close(found[site, step], expected, atol=1e-4, rtol=1e-4)


def test_a_text_that_holds_the_words_gives_word_maps(tiny):
    """OVAM with the prompt for its text: cross-attention's word maps, to rounding of another batch."""
    prompt, run = "a red cat", {"seeds": [3], "steps": 3, "guidance": 4.0}
    for by in ("all", "layer", "head"):
        words = word_maps(tiny, [prompt], ["red", "cat"], by=by, **run).maps
        concepts = concept_maps(tiny, [prompt], ["red", "cat"], within=prompt, by=by, **run).maps
        assert concepts.dims == tuple("concept" if d == "word" else d for d in words.dims)
        np.testing.assert_allclose(concepts.values, words.values, atol=1e-6)


def test_a_softmax_comes_before_the_mean_over_steps_and_layers():
    """The two orders differ: ours is the paper's."""
    far = [scale("transformer/block.1/joint_attn.z", 20.0)]
    each = maps_of("sd3", by="layer", time="each", score="logit", size=(4, 8), interventions=far).maps
    mean = maps_of("sd3", size=(4, 8), interventions=far).maps
    shares = np.exp(each) / np.exp(each).sum("concept")
    np.testing.assert_allclose(mean.values, shares.mean(["step", "layer"]).values, atol=1e-5)
    late = each.mean(["step", "layer"])
    assert abs(mean - np.exp(late) / np.exp(late).sum("concept")).max() > 1e-3


def test_real_pictures_are_looked_at_as_img2img_first_meets_them(tiny):
    """At a step of a run, with the run's own noise: the first call of a run from there."""
    images = trace(tiny, ["a dog"], seeds=[7], steps=2).images
    step = tiny.steps(4)[2]
    found = word_maps(tiny, ["a red cat"], ["cat"], seeds=[5], images=images, levels=[step]).maps
    a, s = scales(tiny.scheduler, step, images)
    seen = []
    watch = Intervention(tiny.reading_sites()[0], lambda x, _: seen.append(x.clone()))
    x = a * tiny.encode_image(images) + s * tiny.noise([5])
    with torch.no_grad():
        tiny.denoise(x, step, ["a red cat"], interventions=[watch])
    layer = word_maps(tiny, ["a red cat"], ["cat"], seeds=[5], images=images, levels=[step],
                      sites=tiny.reading_sites()[0], size=(4, 4)).maps  # fmt: skip
    token = tiny.encode(["a red cat"])[0].find("cat")
    expected = seen[0].mean(1)[0, :, token].mean(1)
    np.testing.assert_allclose(layer.values.ravel(), expected.numpy(), atol=1e-6)
    assert found.shape == (1, 1, 8, 8)


# laws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.encoders])
def test_pictures_equal_a_plain_run_to_the_bit(name):
    model = opened(name, FAMILIES[name].size)
    run = {"seeds": [0, 1], "steps": 2, "guidance": 4.0}
    plain = trace(model, ["a red cat", "a dog"], **run)
    found = concept_maps(model, ["a red cat", "a dog"], ["cat", "dog"], **run)
    assert torch.equal(found.images, plain.images)
    assert found.maps.dims == ("sample", "concept", "y", "x")
    assert found.maps.shape == (2, 2, *model.picture_grid) and bool(found.maps.notnull().all())


@joint
def test_shares_add_up_to_one_and_change_places_with_the_concepts(name):
    maps = maps_of(name).maps
    np.testing.assert_allclose(maps.sum("concept").values, 1, atol=1e-5)
    other = maps_of(name, WORDS[::-1]).maps
    np.testing.assert_allclose(other.sel(concept=WORDS).values, maps.values, atol=2e-6)


@joint
def test_heads_add_up_to_the_joined_score(name):
    heads = maps_of(name, score="logit", by="head").maps
    joined = maps_of(name, score="logit", by="layer").maps
    np.testing.assert_allclose(heads.sum("head").values, joined.values, rtol=1e-3, atol=1e-4)
    whole = maps_of(name, score="logit").maps
    np.testing.assert_allclose(joined.mean("layer").values, whole.values, rtol=1e-4, atol=1e-5)


@joint
def test_a_batch_equals_its_parts_whatever_the_negative_prompt(name):
    both = maps_of(name, prompts=("a red cat", "a dog")).maps
    alone = maps_of(name, prompts=("a dog",), seeds=[1]).maps
    np.testing.assert_allclose(both.values[1:], alone.values, atol=1e-5)
    some = maps_of(name, prompts=("a red cat", "a dog"), when=When(rows=(1,))).maps
    assert list(some["sample"].values) == [1]
    np.testing.assert_allclose(some.values, both.values[1:], atol=1e-6)


@joint
def test_maps_of_real_pictures_are_means_over_levels(name):
    model = opened(name, FAMILIES[name].size)
    levels = [model.step_at(log_snr=a) for a in (-1.0, 1.0)]
    images = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    each = maps_of(name, images=images, levels=levels, steps=None, time="each")
    mean = maps_of(name, images=images, levels=levels, steps=None).maps
    assert torch.equal(each.images, images) and each.maps["sigma"].values[0] > each.maps["sigma"].values[1]
    np.testing.assert_allclose(each.maps.mean("step").values, mean.values, atol=1e-6)
    alone = maps_of(name, images=images, levels=levels[1:], steps=None).maps
    np.testing.assert_allclose(each.maps.values[1], alone.values, atol=1e-6)


def test_maps_read_the_prompt_and_not_the_negative_one():
    first = When(steps=[0])
    maps = [maps_of("sd3", guidance=4.0, negative=n, when=first).maps for n in ("", "dog dog")]
    np.testing.assert_allclose(maps[0].values, maps[1].values, atol=1e-6)


@joint
def test_no_other_probe_sees_the_passengers(name):
    model = opened(name, FAMILIES[name].size)
    sites = [s for s in model.sites() if s.stream == "txt"]
    plain = trace(model, ["a red cat"], sites=sites, **RUN)
    seen = {s: [] for s in sites}
    watch = [Intervention(s, lambda x, _, s=s: seen[s].append(x.clone())) for s in sites]
    concept_maps(model, ["a red cat"], WORDS, interventions=watch, **RUN)
    assert all(torch.equal(torch.stack(seen[s]), plain[s]) for s in sites)


def test_the_published_settings_are_other_maps_with_their_names_in_the_result():
    for settings in ("paper", "code"):
        found = maps_of("flux-dev", settings=settings)
        assert found.data.attrs["settings"] == settings
    ours, zero = maps_of("flux-dev"), maps_of("flux-dev", settings="code")
    assert (
        1e-6 < float(abs(ours.maps - zero.maps).max()) < 0.5
    )  # two blocks: the pooled text and pieces alone


def test_published_word_maps_leave_out_the_middle_and_are_sums(emoji):
    run = {"seeds": [3], "steps": 2}
    found = word_maps(emoji, ["a noto emoji of a dog"], ["dog"], settings="code", **run).maps
    side = emoji.picture_grid[0]
    kept = [
        s for s in emoji.reading_sites()
        if not s.block.startswith("mid") and emoji.layout(s).grid[0] * 8 > side
    ]  # fmt: skip
    expected = word_maps(emoji, ["a noto emoji of a dog"], ["dog"], sites=kept, time="sum", **run).maps
    np.testing.assert_array_equal(found.values, expected.values)


def test_views_average_to_the_whole(tiny):
    run = {"seeds": [3], "steps": 2}
    whole = word_maps(tiny, ["a red cat"], time="each", **run).maps
    heads = word_maps(tiny, ["a red cat"], time="each", by="head", **run).maps
    assert heads.dims == ("step", "layer", "head", "sample", "word", "y", "x")
    np.testing.assert_allclose(heads.mean(["layer", "head"]).values, whole.values, atol=1e-6)
    layers = word_maps(tiny, ["a red cat"], by="layer", **run)
    assert [str(s) for s in tiny.reading_sites()] == list(layers.maps["layer"].values)
    assert len(layers.to_frame()) == 3 and "layer" in layers.to_xarray().word_maps.dims
    with pytest.raises(ValueError, match="maps of every layer; choose one"):
        layers.plot()


def test_saved_maps_are_read_again_and_show_themselves(tmp_path):
    found = maps_of("flux-dev", time="each")
    found.save(tmp_path / "maps.zarr")
    again = ConceptMaps.load(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(again.maps.values, found.maps.values)
    assert torch.equal(again.images, found.images)
    assert list(found.to_frame()["concept"]) == WORDS
    assert "".join(found.data.attrs["tokens"]["red dog"]).strip("▁").replace("▁", " ") == "red dog"
    assert "red dog" in found._repr_html_() and "red dog" in repr(found)
    assert found.plot().data


def test_what_is_changed_in_a_text_encoder_acts_on_maps_of_pictures(tiny):
    images = trace(tiny, ["a dog"], seeds=[7], steps=2).images
    run = {"seeds": [5], "images": images}
    plain = word_maps(tiny, ["a red cat"], ["cat"], **run).maps
    change = [scale("text_encoder/layer.0/mlp.out", 9.0)]
    other = word_maps(tiny, ["a red cat"], ["cat"], interventions=change, **run)
    assert float(abs(plain - other.maps).max()) > 1e-5


# planted truth ----------------------------------------------------------------------------------------


@joint
def test_a_planted_region_is_found(name):
    """The picture's rows are one vector in a region, its opposite elsewhere: one concept has the region."""
    model = opened(name, FAMILIES[name].size)
    height, width = model.token_grid
    region = torch.zeros(height, width, dtype=torch.bool)
    region[1:, : width // 2] = True
    u = torch.randn(64, generator=torch.Generator().manual_seed(0))

    def plant(at, x, _):
        picture = model.layout(at).picture
        x = x.clone()
        rows = x[:, :, picture]
        sign = torch.where(region.flatten(), 1.0, -1.0)[:, None]
        rows[:] = 100 * sign * u[: rows.shape[1] * rows.shape[3]].reshape(1, rows.shape[1], 1, rows.shape[3])
        return x

    z = [Site(str(s).replace("probs", "z")) for s in double_blocks(model)][:1]
    first = double_blocks(model)[0]
    planted = [Intervention(s, partial(plant, s)) for s in z]
    maps = concept_maps(model, ["a red cat"], WORDS, sites=first, size=(height, width), interventions=planted,
                        when=When(steps=[0]), **RUN).maps  # fmt: skip
    winner = maps.argmax("concept").values[0]
    inside = set(winner[region.numpy()]), set(winner[~region.numpy()])
    assert all(len(s) == 1 for s in inside) and inside[0] != inside[1]


def test_a_key_planted_in_a_region_is_found(tiny):
    """Queries in a corner are the concept's key: attention goes there, and nowhere else."""
    from denoscope.analysis.attribution.concept_keys import keys_of

    site = tiny.reading_sites()[0]
    text = tiny.encode(["dog"])
    key = keys_of(tiny, [site], text)[site][0][:, text[0].find("dog")[0]]

    def plant(q, _):
        q = torch.zeros_like(q).unflatten(2, (4, 4))
        q[:, :, :2, :2] = 1000 * key[:, None, None]
        return q.flatten(2, 3)

    planted = [Intervention(Site(str(site).replace("probs", "q")), plant)]
    maps = concept_maps(tiny, ["a cat"], ["dog"], sites=site, size=(4, 4), interventions=planted, **RUN).maps
    found = maps.values[0, 0]
    assert found[:2, :2].min() > 5 * found[2:].max()


# failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"concepts": []}, ValueError, "concepts is empty"),
        ({"concepts": ["cat", " "]}, ValueError, "reads as nothing"),
        ({"concepts": ["cat", "cat"]}, ValueError, "'cat' is there 2 times"),
        ({"concepts": ["猫", "cat"]}, LookupError, "does not know '猫'"),
        ({"concepts": "cat"}, TypeError, r"give a list: \['cat'\]"),
        ({"concepts": ["cat"]}, ValueError, "1 everywhere"),
        ({"within": "a red house"}, LookupError, "'cat' is not in the prompt 'a red house'"),
        ({"score": "cosine"}, ValueError, "score is 'cosine'"),
        ({"score": "attention"}, ValueError, "for this model it is 'softmax' or 'logit'"),
        ({"settings": "codes"}, ValueError, "settings is 'codes'"),
        ({"settings": "code"}, ValueError, "is of FLUX.1"),
        ({"settings": "paper", "sites": "transformer/**/joint_attn.probs"}, ValueError, "leave them out"),
        ({"sites": "transformer/**/self_attn.probs"}, ValueError, "concepts are not read at"),
        ({"sites": []}, ValueError, "no sites to read"),
        ({"time": "sum"}, ValueError, "time is 'sum'"),
        ({"by": "block"}, ValueError, "by is 'block'"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"size": (0, 8)}, ValueError, "size is"),
        ({"when": When(branch="uncond")}, ValueError, "branch 'cond'"),
        ({"levels": []}, ValueError, "levels are those of real pictures"),
        ({"images": torch.rand(1, 3, 16, 32)}, ValueError, "steps are of a run"),
        ({"images": torch.rand(1, 3, 16, 32), "steps": None, "levels": []}, ValueError, "levels is empty"),
        ({"images": torch.rand(2, 3, 16, 32), "steps": None}, ValueError, "give one a seed"),
        ({"images": torch.rand(1, 3, 24, 24), "steps": None}, ValueError, "24"),
        ({"images": 255 * torch.rand(1, 3, 16, 32), "steps": None}, ValueError, "0..1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, error, message):
    model = opened("sd3", FAMILIES["sd3"].size)
    given = {"prompts": ["a red cat"], "concepts": WORDS, **RUN, **change}
    with pytest.raises(error, match=message):
        concept_maps(model, given.pop("prompts"), given.pop("concepts"), **given)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.denoiser.modules())


def test_models_without_such_attention_are_refused(tiny):
    with pytest.raises(LookupError, match="neither cross-attention nor joint attention"):
        concept_maps(opened("dit"), ["cat"], ["cat"], seeds=[0], steps=1)
    with pytest.raises(LookupError, match="neither cross-attention"):
        concept_maps(load(tiny_ddim()), [""], ["cat"], seeds=[0], steps=1)
    with pytest.raises(LookupError, match="tiny.*has none|has none"):
        concept_maps(tiny, ["a cat"], ["cat"], seeds=[0], steps=1, settings="paper")
    with pytest.raises(ValueError, match="which reads UNets"):
        word_maps(opened("sd3"), ["a cat"], seeds=[0], steps=1, settings="code")
    with pytest.raises(ValueError, match="leave them out"):
        word_maps(tiny, ["a cat"], seeds=[0], steps=1, settings="code", time="sum")
    with pytest.raises(ValueError, match="settings is 'paper'"):
        word_maps(tiny, ["a cat"], seeds=[0], steps=1, settings="paper")
