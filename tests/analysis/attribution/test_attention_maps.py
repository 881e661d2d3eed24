"""Word heat maps: equal to the published formula, and to a plain picture."""

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional as F

from denoscope.analysis.attribution.attention_maps import maps_from_trace, word_maps
from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd
from denoscope.probes.intervene import Intervention
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

PROBS = "unet/**/cross_attn.probs"
RUN = {"seeds": [3], "steps": 3, "guidance": 4.0}


@pytest.fixture(scope="module")
def model():
    return load(tiny_sd())


@pytest.fixture(scope="module")
def two_levels():
    """A tiny model with cross-attention at 8x8 and 4x4, so that resizing and cutting off matter."""
    return load(_two_levels((8, 8)))


@pytest.fixture(scope="module")
def wide():
    """The same with latents of 5 x 8: not square, and odd, so that the second level is rounded up."""
    return load(_two_levels((5, 8)))


def _two_levels(size):
    pipe = tiny_sd()
    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with torch.no_grad():  # sharpen attention: random weights give nearly uniform maps, which test nothing
        for name, p in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                p.mul_(6)
    pipe.register_modules(unet=unet.eval())
    return pipe


# exact ------------------------------------------------------------------------------------------------


def published(model, prompt, *, seeds, steps, guidance):
    """DAAM as printed, through diffusers' own eager processor: sum over time, resize, cut, mean, in whole."""

    class Recorder(AttnProcessor):
        def __init__(self, kept):
            super().__init__()
            self.kept = kept

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))
            key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            self.kept.append(attn.get_attention_scores(query, key, attention_mask))
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)

    unet, layers = model.pipe.unet, {}
    before = dict(unet.attn_processors)
    for name in before:
        layers[name] = [] if "attn2" in name else None
    unet.set_attn_processor(
        {n: AttnProcessor() if kept is None else Recorder(kept) for n, kept in layers.items()}
    )
    try:
        list(model.sample([prompt], seeds=seeds, steps=steps, guidance=guidance))
    finally:
        unet.set_attn_processor(before)
    _, height, width = model.latent_shape
    maps = []
    for calls in (kept for kept in layers.values() if kept is not None):
        total = torch.stack(calls).sum(0)
        if guidance > 1:
            total = total[len(total) // 2 :]
        full = total.shape[1] == height * width
        level = (height, width) if full else ((height + 1) // 2, (width + 1) // 2)
        low = total.transpose(1, 2).reshape(total.shape[0], -1, *level)
        maps.append(F.interpolate(low, (height, width), mode="bicubic").clamp(min=0))
    return torch.cat(maps).mean(0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("which", ["two_levels", "wide"])
def test_equals_the_published_formula(request, which, guidance):
    model = request.getfixturevalue(which)
    run = {"seeds": [3], "steps": 3, "guidance": guidance}
    with torch.no_grad():
        expected = published(model, "a red cat", **run)
    prompt = model.encode(["a red cat"])[0]
    maps = word_maps(model, ["a red cat"], ["red", "cat"], time="sum", **run).maps
    assert maps.shape == (1, 2, *model.latent_shape[1:])
    assert expected.std(dim=(1, 2)).max() > 0.01
    for word in ("red", "cat"):
        got = torch.from_numpy(maps.sel(word=word).values)[0]
        assert torch.allclose(got, expected[prompt.find(word)].mean(0), atol=3e-6)


def test_the_cut_comes_before_the_mean_over_heads(two_levels):
    """Averaging heads first is another number (5 % in the paper's models); ours is the published one."""
    sites = [s for s in two_levels.sites(PROBS) if "up.0" in str(s)]  # a 4x4 level, resized to 8x8
    run = trace(two_levels, ["cat"], sites=sites, **RUN)
    at = run.prompts[0].find("cat")
    low = (
        torch.stack([run[s].sum(0)[0] for s in sites])
        .flatten(0, 1)[..., at]
        .transpose(1, 2)
        .reshape(-1, 1, 4, 4)
    )
    big = F.interpolate(low, (8, 8), mode="bicubic")
    assert (big < 0).any()
    got = torch.from_numpy(word_maps(two_levels, ["cat"], sites=sites, time="sum", **RUN).maps.values)[0, 0]
    assert torch.allclose(got, big.clamp(min=0).mean(0)[0], atol=1e-6)
    assert not torch.allclose(got, big.mean(0, keepdim=True).clamp(min=0)[0, 0], atol=1e-4)


def test_pictures_equal_a_plain_run_to_the_bit(two_levels):
    prompts, run = ["a red cat", "dog"], {"seeds": [3, 4], "steps": 3, "guidance": 4.0}
    plain = trace(two_levels, prompts, **run)
    found = word_maps(two_levels, prompts, **run)
    assert torch.equal(found.latents, plain.latents)
    assert torch.equal(found.images, plain.images)


# laws -------------------------------------------------------------------------------------------------


def test_all_tokens_of_one_level_add_up_to_the_steps(model):
    """Every token once, as words of one character; the two ends of the text are the rest."""
    run = trace(model, ["a b c"], sites=PROBS, **RUN)
    length = len(run.prompts[0].tokens)
    assert {s.shape[3] for s in run.values()} == {16}  # all layers at 4x4
    rest = [i for i in range(length) if i not in run.prompts[0].find("a b c")]
    ends = torch.stack([run[s].sum(0)[0, ..., rest].sum(-1) for s in run]).mean((0, 1)).reshape(4, 4)
    maps = word_maps(model, ["a b c"], time="sum", size=(4, 4), **RUN).maps
    total = torch.from_numpy(maps.sum("word").values)[0] + ends
    assert torch.allclose(total, torch.full((4, 4), 3.0), atol=1e-5)


def test_batch_equals_single_runs(two_levels):
    both = word_maps(two_levels, ["a red cat", "a dog"], seeds=[3, 9], steps=3, guidance=4.0).maps
    assert list(both.word.values) == ["a", "red", "cat", "dog"]
    for i, (prompt, seed) in enumerate([("a red cat", 3), ("a dog", 9)]):
        one = word_maps(two_levels, [prompt], seeds=[seed], steps=3, guidance=4.0).maps
        for word in one.word.values:
            a, b = both.sel(word=word).values[i], one.sel(word=word).values[0]
            assert abs(a - b).max() < 2e-6
    assert both.sel(word="dog")[0].isnull().all() and both.sel(word="cat")[1].isnull().all()
    assert both.sel(word="a").notnull().all()


def test_without_guidance_every_head_counts(two_levels):
    """The published code loses half of the heads here; the first step of both runs sees the same latents."""
    run = {"seeds": [3], "steps": 3, "when": When(steps=[0])}
    with_guidance = word_maps(two_levels, ["a red cat"], guidance=4.0, **run).maps
    without = word_maps(two_levels, ["a red cat"], guidance=1.0, **run).maps
    assert abs(with_guidance - without).max() < 1e-6


def test_maps_read_the_prompt_and_not_the_negative_one(two_levels):
    first = When(steps=[0])
    maps = [
        word_maps(two_levels, ["a red cat"], negative=n, when=first, **RUN).maps for n in ("", "dog dog dog")
    ]
    assert abs(maps[0] - maps[1]).max() < 1e-6


def test_uniform_attention_gives_constant_maps(two_levels):
    sites = two_levels.sites("unet/**/cross_attn.q")
    flat = [Intervention(s, lambda x, _: torch.zeros_like(x)) for s in sites]
    tokens = len(two_levels.encode(["a"])[0].tokens)
    maps = word_maps(two_levels, ["a red cat"], interventions=flat, time="sum", **RUN).maps
    assert abs(maps - 3 / tokens).max() < 1e-6


def test_a_repeated_word_is_the_mean_of_its_places(model):
    prompt = model.encode(["cat red Cat"])[0]
    assert len(prompt.find("cat")) == 2
    run = trace(model, ["cat red Cat"], sites=PROBS, **RUN)
    rows = torch.stack([run[s].mean(0)[0] for s in run]).mean((0, 1))[:, prompt.find("cat")]
    maps = word_maps(model, ["cat red Cat"], size=(4, 4), **RUN).maps
    assert list(maps.word.values) == ["cat", "red"]
    assert torch.allclose(
        torch.from_numpy(maps.sel(word="cat").values)[0], rows.mean(1).reshape(4, 4), atol=1e-6
    )


def test_mean_is_the_sum_over_the_number_of_steps(two_levels):
    total = word_maps(two_levels, ["a cat"], time="sum", when=When(steps=[1, 2]), **RUN).maps
    mean = word_maps(two_levels, ["a cat"], when=When(steps=[1, 2]), **RUN).maps
    assert abs(total / 2 - mean).max() < 1e-6
    assert float(mean.min()) >= 0


def test_each_step_is_the_map_of_that_step_alone(two_levels):
    each = word_maps(two_levels, ["a cat"], time="each", **RUN)
    assert each.maps.dims == ("step", "sample", "word", "y", "x")
    for i in range(3):
        alone = word_maps(two_levels, ["a cat"], when=When(steps=[i]), **RUN).maps
        assert abs(each.maps.sel(step=i) - alone).max() < 1e-6
    assert each.maps.sigma.values[0] > each.maps.sigma.values[2]


def test_some_samples_only(two_levels):
    run = {"seeds": [3, 4, 5], "steps": 2, "guidance": 4.0}
    prompts = ["a cat", "a dog", "red cat"]
    every = word_maps(two_levels, prompts, **run)
    some = word_maps(two_levels, prompts, when=When(rows=(2, 0)), **run)
    assert list(some.maps.sample.values) == [2, 0]
    assert some.images.shape[0] == 3
    difference = some.maps - every.maps.sel(sample=[2, 0], word=some.maps.word)
    assert abs(difference).max() < 1e-6


def test_the_dataset_is_labelled(two_levels):
    found = word_maps(two_levels, ["a cat", "a dog"], seeds=[3, 4], steps=2)
    data = found.to_xarray()
    assert data.word_maps.sel(sample=1, word="dog").shape == (8, 8)
    assert list(data.prompt.values) == ["a cat", "a dog"] and list(data.seed.values) == [3, 4]
    assert data.latents.shape[0] == 2
    assert "step" in word_maps(two_levels, ["a cat"], time="each", **RUN).to_xarray().word_maps.dims


# planted truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_word_planted_in_the_left_half_lights_the_left_half(model, guidance):
    """One word gets all attention on the left of the second sample; nothing else may move."""
    prompts, run = ["a red cat", "a red cat"], {"seeds": [3, 3], "steps": 3, "guidance": guidance}
    token = model.encode(prompts[:1])[0].find("cat")

    def plant(x, _):
        x = x.clone().unflatten(2, (4, 4))
        x[:, :, :, :2] = 0
        x[:, :, :, :2, token] = 1
        return x.flatten(2, 3)

    planted = [Intervention(s, plant).on(1) for s in model.sites(PROBS)]
    found = word_maps(model, prompts, size=(4, 4), interventions=planted, **run)
    maps = found.maps
    left, right = maps[1, ..., :2], maps[1, ..., 2:]
    assert abs(left.sel(word="cat") - 1).max() < 1e-6
    assert abs(left.sel(word=["a", "red"])).max() < 1e-6
    assert right.sel(word="cat").max() < 0.5
    untouched = word_maps(model, prompts, size=(4, 4), **run).maps
    assert abs(maps[0] - untouched[0]).max() < 1e-6
    assert not torch.equal(found.latents[0], found.latents[1])  # and the picture changed with it


# families -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.encoders])
def test_every_family_that_reads_words_has_maps(name):
    """By hand from traced probabilities: the picture's rows, the columns of one word, mean over all heads."""
    model = opened(name, FAMILIES[name].size)
    found = word_maps(model, ["a red cat", "a dog"], ["a"], seeds=[0, 1], steps=2)
    height, width = model.picture_grid
    assert found.maps.shape == (2, 1, height, width)
    run = trace(model, ["a red cat", "a dog"], seeds=[0, 1], steps=2, sites=model.reading_sites())
    tokens = run.prompts[0].find("a")
    text = len(run.prompts[0].tokens)
    total, heads = 0, 0
    for site, probs in run.items():
        summed = probs[:, 0].sum(0)  # [head, query, key]
        if site.kind == "joint_attn.probs":
            own = summed.shape[1] - text
            rows = slice(0, own) if name == "sd3" else slice(text, None)
            first = own if name == "sd3" else 0
            summed = summed[:, rows, first : first + text]
        side = 1 if name == "sana" else 2  # latent pixels in a token
        size = (height // side, width // side) if model.input_site.component == "transformer" else None
        for head in summed:
            low = head[:, tokens].T
            grid = size or _halved(low.shape[1], height, width)
            high = F.interpolate(low.view(1, -1, *grid), (height, width), mode="bicubic")[0]
            total, heads = total + high.clamp(min=0).mean(0), heads + 1
    torch.testing.assert_close(
        torch.from_numpy(found.maps[0, 0].values), total / heads / 2, atol=1e-5, rtol=1e-4
    )
    assert torch.equal(found.latents, run.latents)


def _halved(queries, height, width):
    while height * width > queries:
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def test_a_model_that_reads_no_words_while_it_paints_is_refused():
    with pytest.raises(LookupError, match="neither cross-attention nor joint attention"):
        word_maps(opened("dit"), ["cat"], seeds=[0], steps=2)


# failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"words": ["horse"]}, LookupError, "'horse' is not in the prompt 'a red cat'"),
        ({"prompts": ["a 猫"], "words": ["猫"]}, LookupError, "the tokenizer does not know '猫'"),
        ({"words": "cat"}, TypeError, r"give a list: \['cat'\]"),
        ({"prompts": "a red cat"}, TypeError, r"give a list: \['a red cat'\]"),
        ({"prompts": [""]}, ValueError, "no words to map"),
        ({"sites": "unet/**/self_attn.probs"}, ValueError, "holds no attention to the text"),
        ({"sites": "unet/**/cross_attn.prob"}, LookupError, "no site matches"),
        ({"sites": []}, ValueError, "no sites to read"),
        ({"when": When(branch="uncond")}, ValueError, "branch 'cond', not 'uncond'"),
        ({"when": When(steps=[9])}, ValueError, "steps 0 to 2"),
        ({"when": When(rows=(1,))}, ValueError, "samples 0 to 0"),
        ({"time": "max"}, ValueError, "time is 'max'"),
    ],
)
def test_bad_input_is_named(model, change, error, message):
    given = {"prompts": ["a red cat"], **RUN, **change}
    with pytest.raises(error, match=message):
        word_maps(model, given.pop("prompts"), given.pop("words", None), **given)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.denoiser.modules())


def test_words_that_the_tokenizer_does_not_know_have_no_map_and_are_named(model):
    with pytest.warns(UserWarning, match=r"\['猫'\] of the prompt 'a 猫 cat' have no map"):
        found = word_maps(model, ["a 猫 cat"], **RUN)
    assert list(found.maps["word"].values) == ["a", "cat"]


def test_a_model_without_prompts_is_refused():
    with pytest.raises(ValueError, match="reads no prompt, but got 'a cat'"):
        word_maps(load(tiny_ddim()), ["a cat"], seeds=[0], steps=2)


def test_maps_of_rows_in_another_order_are_refused(tiny):
    """They would be those of the other prompt."""
    for rows in ((1, 0), (1, 1), (1,)):
        run = trace(
            tiny, ["a cat", "a cat"], seeds=[0, 1], steps=1, sites=tiny.reading_sites(), when=When(rows=rows)
        )
        with pytest.raises(ValueError, match="maps need the rows of all samples"):
            maps_from_trace(run, tiny, ["cat"])
