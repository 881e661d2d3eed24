"""Every family through the same door: its own pipeline to the bit, names that tell the truth, words found."""

import warnings
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch

from denoscope.models.check import check_model
from denoscope.models.errors import StateError
from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.intervene import Intervention, patch, scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

TEXTS = ("a cat", "a red dog", "a Cook emoji")


@dataclass(frozen=True)
class Family:
    """How to make a tiny one, what to tell it, and pictures of another shape than its own."""

    make: Any
    texts: tuple[str, ...] = TEXTS
    size: tuple[int, int] | None = (16, 32)
    streams: int = 1
    encoders: tuple[str, ...] = ()
    own: tuple[int, int] | None = None


FAMILIES = {
    "sd": Family(tiny.tiny_sd, encoders=("text_encoder",)),
    "sdxl": Family(tiny_families.tiny_sdxl, encoders=("text_encoder", "text_encoder_2")),
    "pixart-alpha": Family(tiny_families.tiny_pixart_alpha, encoders=("text_encoder",)),
    "pixart-alpha-1024": Family(
        partial(tiny_families.tiny_pixart_alpha, told_size=True), encoders=("text_encoder",), own=(16, 16)
    ),
    "pixart-sigma": Family(tiny_families.tiny_pixart_sigma, encoders=("text_encoder",)),
    "sd3": Family(
        tiny_families.tiny_sd3, streams=2, encoders=("text_encoder", "text_encoder_2", "text_encoder_3")
    ),
    "flux-dev": Family(tiny_families.tiny_flux, streams=2, encoders=("text_encoder", "text_encoder_2")),
    "flux-schnell": Family(
        partial(tiny_families.tiny_flux, guidance_embeds=False),
        streams=2,
        encoders=("text_encoder", "text_encoder_2"),
    ),
    "sana": Family(tiny_families.tiny_sana, size=(32, 64), encoders=("text_encoder",)),
    "dit": Family(tiny_families.tiny_dit, texts=("cat", "hound", "2"), size=None),
    "ldm": Family(tiny_families.tiny_ldm, size=(64, 128), encoders=("text_encoder",)),
    "ddpm": Family(tiny.tiny_ddpm, texts=("", "", ""), size=None),
}
TOLD = [name for name in FAMILIES if name != "ddpm"]
READING = [(name, encoder) for name, family in FAMILIES.items() for encoder in family.encoders]

every = pytest.mark.parametrize("name", FAMILIES)
pytestmark = pytest.mark.filterwarnings("ignore:.*scale_model_input.*")


def shortened(model):
    """The same model, reading shorter texts than real ones do, for time."""
    model.t5_tokens = model.text_tokens = 24
    model.instruction = ("Paint well.", "What to paint: ")
    return model


@cache
def opened(name, size=None):
    family = FAMILIES[name]
    return shortened(load(family.make(), size=size or family.own))


@cache
def whole_trace(name):
    family = FAMILIES[name]
    return trace(opened(name), family.texts, seeds=[0, 1, 2], steps=2, sites="**")


def equals_its_pipeline(model, texts, guidance, steps=3, seeds=(5, 6, 7)):
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    with torch.no_grad():
        theirs = model.run_pipeline(list(texts), generators, steps, guidance)
        *_, state = model.sample(texts, seeds=seeds, steps=steps, guidance=guidance)
        return torch.equal(model.decode(state.latents), theirs)


@every
def test_the_adapter_holds(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # schedulers tell which settings of another they leave out
        table = check_model(opened(name), FAMILIES[name].texts, guidance=4.0)
    assert len(table) >= 4


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.size])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_of_another_shape(name, guidance):
    model = opened(name, FAMILIES[name].size)
    assert equals_its_pipeline(model, FAMILIES[name].texts, guidance)
    assert trace(model, [""], seeds=[0], steps=1).images.shape[-2:] == FAMILIES[name].size


@every
def test_a_size_it_cannot_paint_is_refused(name):
    with pytest.raises(ValueError, match=r"size is \(13, 7\)"):
        load(FAMILIES[name].make(), size=(13, 7))


@every
def test_watching_changes_nothing(name):
    plain = trace(opened(name), FAMILIES[name].texts, seeds=[0, 1, 2], steps=2)
    assert torch.equal(plain.latents, whole_trace(name).latents)
    assert set(whole_trace(name)) == set(opened(name).sites())


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@every
def test_attention_is_told_per_head(name):
    acts = whole_trace(name)
    found = [s for s in acts if s.kind.endswith(".probs")]
    for site in found:
        probs, stem = acts[site], str(site).removesuffix("probs")
        close(probs.sum(-1), torch.ones(probs.shape[:-1]))
        close(probs @ acts[stem + "v"], acts[stem + "z"])
    blocks = {s.block for s in acts if ".q_proj" in s.kind and s.component in ("unet", "transformer")}
    assert {s.block for s in found if s.component in ("unet", "transformer")} == blocks


SUMS = [
    ("resid.pre", "self_attn.out", "resid.mid1"),
    ("resid.mid1", "cross_attn.out", "resid.mid2"),
    ("resid.mid2", "mlp.out", "resid.post"),
    ("resid.pre", "self_attn.out", "resid.mid"),
    ("resid.mid", "mlp.out", "resid.post"),
]
GATED = ("self_attn.out", "mlp.out")  # adaptive norms scale these outside of the module


@every
def test_streams_add_up(name):
    acts = whole_trace(name)
    tried = 0
    for stem in {str(s).rsplit("/", 1)[0] for s in acts}:
        for before, added, after in SUMS:
            normed = added.replace(".out", ".normed")  # where a norm stands between layer and stream
            added = normed if f"{stem}/{normed}" in acts else added
            names = [f"{stem}/{kind}" for kind in (before, added, after)]
            gated = stem.startswith("transformer") and added in GATED
            if set(names) <= set(map(str, acts)) and not gated:
                close(acts[names[0]] + acts[names[1]], acts[names[2]])
                tried += 1
    assert tried or name in ("dit", "ddpm")


@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux-dev", "sana", "dit"])
def test_each_block_hands_on_to_the_next(name):
    acts = whole_trace(name)
    streams = ("",) if FAMILIES[name].streams == 1 else ("@img", "@txt")
    for stream in streams:
        handed = acts[f"transformer/block.0/resid.post{stream}"]
        close(handed, acts[f"transformer/block.1/resid.pre{stream}"])
        # and a wrong pairing is far off
        assert (handed - acts[f"transformer/block.0/resid.pre{stream}"]).abs().max() > 1e-3


def test_flux_hands_from_double_to_single_blocks_and_to_the_end():
    acts = whole_trace("flux-dev")
    for stream in ("@img", "@txt"):
        close(
            acts[f"transformer/block.1/resid.post{stream}"], acts[f"transformer/single.0/resid.pre{stream}"]
        )


@every
def test_putting_back_what_was_there_changes_nothing(name):
    model, acts = opened(name), whole_trace(name)
    sites = [s for s in acts if "resid.post" in s.kind or s.kind.endswith((".probs", ".out", ".z"))]
    if name == "sdxl":  # which reads its first encoder before the last layer
        sites = [s for s in sites if not str(s).startswith("text_encoder/layer.1/")]
    # text encoders run before, so their own values come back from their own run
    put_back = [patch(s, acts) for s in sites]
    again = trace(model, FAMILIES[name].texts, seeds=[0, 1, 2], steps=2, interventions=put_back)
    close(again.latents, acts.latents)


@every
def test_a_change_moves_its_own_row_alone(name):
    model, acts = opened(name), whole_trace(name)
    part = model.input_site.component
    outs = [s for s in acts if s.component == part and s.kind.endswith("attn.out") and s.stream != "txt"]
    site = outs[0]
    change = scale(site, -2.0, When(steps={1}, rows=(1,)))
    moved = trace(model, FAMILIES[name].texts, seeds=[0, 1, 2], steps=2, interventions=[change])
    difference = (moved.latents - acts.latents).flatten(1).abs().amax(1)
    assert difference[1] > 1e-5 and difference[0] == 0 and difference[2] == 0


@every
def test_sweeps_equal_single_runs(name):
    model, texts = opened(name), FAMILIES[name].texts
    part = model.input_site.component
    sites = [s for s in model.sites() if s.component == part and ".out" in s.kind][1:4]
    runs = [SweepRun(texts[0], 0)] + [
        SweepRun(texts[0], 0, (scale(s, 2.0, When({k})),)) for k, s in enumerate(sites)
    ]
    swept = sweep(model, runs, steps=3, batch=4)
    alone = [
        trace(model, [r.prompt], seeds=[r.seed], steps=3, interventions=r.interventions).latents for r in runs
    ]
    most = swept.latents.abs().max()  # random networks blow latents up
    close(swept.latents / most, torch.cat(alone) / most)


@pytest.mark.parametrize(("name", "encoder"), READING)
@pytest.mark.parametrize(
    ("text", "word", "spelled"),
    [
        ("a red cat", "red", ["red"]),
        ("a Cat and a cat", "cat", ["Cat", "cat"]),
        ("the zebra", "zebra", ["zebra"]),
        ("  a dog", "dog", ["dog"]),
        ("red-cat dog", "dog", ["dog"]),
    ],
)
def test_words_are_found_in_every_encoder(name, encoder, text, word, spelled):
    words = opened(name).encode([text])[0].of(encoder)
    found = words.find(word)
    ends = [text.index(s, i and text.index(spelled[0]) + 1) for i, s in enumerate(spelled)]
    covered = {i for t in found for i in range(*words.spans[t]) if not text[i].isspace()}
    assert covered == {
        i for start, s in zip(ends, spelled, strict=True) for i in range(start, start + len(s))
    }
    assert max(found) < words.end


@pytest.mark.filterwarnings("ignore:.*is cut off there")
@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.encoders])
def test_too_long_a_prompt_is_refused_and_says_what_is_lost(name):
    with pytest.raises(ValueError, match=r"would be cut off; shorten the prompt"):
        opened(name).encode(["zebra " * 400])


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_where_clip_stands_beside_t5_it_is_cut_off_with_a_warning_and_t5_reads_on(name):
    model = load(FAMILIES[name].make())
    text = "a zebra " * 12 + "red cat"
    with pytest.warns(UserWarning, match=r"CLIPTok\w+ of \w+ reads 32 tokens; '[a zebr]+red cat' is cut"):
        prompt = model.encode([text])[0]
    last = model.text_encoders[-1]
    assert prompt.tokens[prompt.find("cat")[0]] == prompt.of(last).tokens[prompt.of(last).find("cat")[0]]
    assert prompt.reads("cat") and not prompt.of("text_encoder").reads("cat")
    with pytest.raises(LookupError, match=r"no token stands for 'cat': .* was cut off after 32 tokens"):
        prompt.of("text_encoder").find("cat")
    with pytest.warns(UserWarning, match="cut off"):
        assert equals_its_pipeline(model, [text, "a red cat", "dog"], 4.0)


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_each_text_encoder_can_be_changed(name, encoder):
    model, texts = opened(name), FAMILIES[name].texts
    layer = next(s for s in model.sites(f"{encoder}/layer.0/mlp.out"))
    moved = trace(model, texts, seeds=[0, 1, 2], steps=2, interventions=[scale(layer, 3.0, When(rows=(0,)))])
    difference = (moved.latents - whole_trace(name).latents).flatten(1).abs().amax(1)
    assert difference[0] > 1e-6 and difference[1] == 0 and difference[2] == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_a_site_are_what_its_module_computes_with(name):
    model = opened(name)
    site = next(s for s in model.sites() if s.kind.startswith(("self_attn.out", "joint_attn.out")))
    weight = next(w for n, w in model.weights(site).items() if n.endswith("weight"))
    assert model.module(site).weight is weight
    assert all(model.parameter(n) is p for n, p in model.weights(site).items())


def test_xl_reads_zeros_for_no_text_only_if_told_so():
    model = load(tiny_families.tiny_sdxl())
    assert model.negative([""])[0].embeds.abs().max() == 0
    assert model.negative(["dog"])[0].embeds.abs().max() > 0
    model.pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert model.negative([""])[0].embeds.abs().max() > 0
    assert equals_its_pipeline(model, TEXTS, 4.0)


def test_sd3_without_t5_and_with_shifted_noise():
    pipe = tiny_families.tiny_sd3(shifting=True)
    pipe.text_encoder_3 = None
    assert equals_its_pipeline(load(pipe), TEXTS, 4.0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_flux_with_true_cfg_scale(guidance):
    model = load(tiny_families.tiny_flux())
    model.true_cfg_scale = 3.0
    assert model.uses_cfg(guidance) and equals_its_pipeline(model, TEXTS, guidance)
    seen = []
    watch = Intervention(
        "transformer/block.0/mlp.out@img", lambda x, _: seen.append(len(x)), When(branch="uncond")
    )
    trace(model, TEXTS, seeds=[0, 1, 2], steps=2, interventions=[watch])
    assert seen == [3, 3]


def test_flux_dev_is_told_its_guidance_and_schnell_is_not():
    def differs(name):
        a, b = (trace(opened(name), TEXTS, seeds=[0, 1, 2], steps=2, guidance=g).latents for g in (1.0, 6.0))
        return not torch.equal(a, b)

    assert differs("flux-dev") and not differs("flux-schnell")


@torch.no_grad()
def test_what_flux_dev_is_told_is_said_by_whoever_calls_it():
    for name in ("flux-schnell", "flux-dev"):
        model = opened(name)
        x, step, prompts = model.noise([0]), model.step_at(t=500), model.encode(["a cat"])
        told = [model.denoise(x, step, prompts, guidance=g) for g in (1.0, 6.0)]
        assert torch.equal(*told) == (name == "flux-schnell")
        if name == "flux-schnell":
            assert torch.equal(model.predict(x, step, prompts), told[0])
        else:
            with pytest.raises(StateError, match=r"predict\(\) does not take; model\.denoise"):
                model.predict(x, step, prompts)


def test_linear_attention_has_no_probabilities():
    """Its heads by hand from the projections: relu(q) (relu(k)ᵀ v), divided by relu(q) (sum of relu(k))."""
    model, acts = opened("sana"), whole_trace("sana")
    kinds = [s.kind for s in model.sites("transformer/block.0/self_attn.*")]
    assert kinds == [f"self_attn.{k}" for k in ("q_proj", "k_proj", "v_proj", "out")]
    q, k, v, out = (acts[f"transformer/block.0/{kind}"] for kind in kinds)
    q, k, v = (x.unflatten(-1, (2, 8)).transpose(-2, -3) for x in (q.relu(), k.relu(), v))
    heads = q @ (k.mT @ v) / (q @ k.sum(-2)[..., None] + 1e-15)
    close(model.module("transformer/block.0/self_attn.out")(heads.transpose(-2, -3).flatten(-2)), out)


def test_sana_reads_the_instruction_in_one_branch_and_keeps_the_texts_own_tokens():
    model = opened("sana")
    told, free = (model.encode([" Cat-dog"], branch)[0] for branch in ("cond", "uncond"))
    assert len(told.tokens) == len(free.tokens) == len(told.mask) == model.text_tokens
    whole = told.of("text_encoder")
    assert "".join(whole.tokens).startswith("<bos>Paint▁well.\nWhat▁to▁paint:▁cat-▁dog"[:36])
    assert len(free.of("text_encoder").tokens) == model.text_tokens < len(whole.tokens)
    assert told.tokens[:2] == ("<bos>", "▁cat") and told.spans[:3] == ((0, 0), (1, 4), (4, 5))
    assert free.tokens[:2] == ("<bos>", "cat") and told.find("cat") == free.find("cat") == [1]
    assert int(told.mask.sum()) == told.end
    assert not torch.equal(told.embeds, free.embeds)


def test_sana_without_an_instruction_and_told_other_times():
    pipe = tiny_families.tiny_sana()
    pipe.transformer.register_to_config(timestep_scale=0.001)
    model = shortened(load(pipe))
    assert model.time_scale == pytest.approx(1000)
    model.instruction = ()
    assert equals_its_pipeline(model, TEXTS, 4.0)


def test_sana_as_it_is_read_by_default():
    model = load(tiny_families.tiny_sana())
    assert len(model.instruction) == 8 and model.text_tokens == 300
    assert equals_its_pipeline(model, TEXTS[:1], 4.0, steps=1, seeds=(5,))


def test_an_unknown_class_is_refused_with_near_misses():
    with pytest.raises(LookupError, match=r"no class 'hond'; did you mean 'hound'"):
        opened("dit").encode(["hond"])
    with pytest.raises(LookupError, match="no class '1000'"):
        opened("dit").encode(["1000"])


def test_a_word_of_no_encoder_is_refused():
    with pytest.raises(LookupError, match="no text encoder 'text_encoder_9'"):
        opened("sdxl").encode(["a cat"])[0].of("text_encoder_9")


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_clean_latents_in_flow_matching(name):
    """On the straight path from noise to a picture, every point implies the same picture."""
    model = opened(name)
    steps = model.steps(4)
    clean, noise = model.noise([0]), model.noise([1])
    for step in steps[1:]:
        a = 1 / (1 + step.sigma)
        seen = a * clean + (1 - a) * noise
        close(model.to_x0(seen, noise - clean, step), clean)
        close(model.to_eps(seen, noise - clean, step), noise)
    assert steps[0].sigma > 100
