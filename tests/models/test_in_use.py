"""Pipelines as people use them: half precision, offloaded, sliced, compiled, with LoRAs and learned words."""

import functools

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from denoscope.analysis.attribution.attention_maps import word_maps
from denoscope.editing.edit import Edit
from denoscope.editing.methods.quickfix import quickfix
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import zero
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, equals_its_pipeline, shortened

OUT = "unet/mid.attn.0.0/cross_attn.out"
TEXTS = ("a cat", "a red dog", "a Cook emoji")
NUMPY_ONLY = ("ldm", "ddpm")
"""Their pipelines cannot return bfloat16 themselves."""

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def quiet():
    """Diffusers tells at length which modules it would keep in float32."""
    before = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    yield
    diffusers.logging.set_verbosity(before)


LARGE = "pixart-alpha-1024"  # its pictures have 1024 pixels, and the one with 512 goes the same way
EACH = [pytest.param(name, marks=pytest.mark.stress) if name == LARGE else name for name in FAMILIES]


# where a CPU has no products in half precision, each takes as long as sixty in float32
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.stress)])
@pytest.mark.parametrize("name", EACH)
def test_half_precision_equals_the_pipeline(name, dtype):
    if dtype == torch.bfloat16 and name in NUMPY_ONLY:
        pytest.skip("this pipeline of diffusers cannot return bfloat16")
    model = shortened(load(FAMILIES[name].make().to(dtype)))
    assert equals_its_pipeline(model, FAMILIES[name].texts, 4.0)
    for module in model.components.values():
        assert {p.dtype for p in module.parameters()} == {dtype}


@pytest.mark.parametrize("name", EACH)
def test_offloaded_components_are_called_where_they_compute(name):
    pipe = FAMILIES[name].make()
    pipe.enable_model_cpu_offload(device="cpu")  # with a GPU: where the hooks bring each component to
    model = shortened(load(pipe))
    assert equals_its_pipeline(model, FAMILIES[name].texts, 4.0)
    site = model.sites()[0]
    assert trace(model, FAMILIES[name].texts[:1], seeds=[0], steps=1, sites=[site])[site].isfinite().all()
    model.denoiser._hf_hook.execution_device = torch.device("meta")
    assert model.device.type == "meta"
    assert model.noise([0]).is_meta


def test_weights_that_come_and_go_are_refused():
    pipe = tiny_sd()
    pipe.unet.to("meta")  # as enable_sequential_cpu_offload leaves it
    with pytest.raises(ValueError, match=r"weights of unet are not in memory.*enable_model_cpu_offload"):
        load(pipe)


def test_sliced_attention_is_seen_from_outside_alone():
    model = load(tiny_sd())
    plain = trace(model, TEXTS, seeds=[0, 1, 2], steps=2, sites=[OUT])
    model.pipe.enable_attention_slicing(1)
    sliced = trace(model, TEXTS, seeds=[0, 1, 2], steps=2, sites=[OUT])
    assert torch.allclose(plain[OUT], sliced[OUT], atol=1e-5)
    with pytest.raises(RuntimeError, match="turn off attention slicing"):
        trace(model, TEXTS, seeds=[0, 1, 2], steps=2, sites=[OUT.replace(".out", ".probs")])
    model.pipe.disable_attention_slicing()
    assert word_maps(model, ["a cat"], seeds=[0], steps=1).maps.max() > 0


@pytest.mark.parametrize(
    "whole", [pytest.param(True, marks=pytest.mark.stress), False], ids=["whole", "block"]
)
def test_compiled_denoisers_sample_but_are_not_hooked(whole):
    pipe, plain = tiny_sd(), load(tiny_sd())
    (pipe.unet if whole else pipe.unet.mid_block).compile(backend="eager")
    model = load(pipe)
    run = {"seeds": [0], "steps": 2, "sites": []}
    ours, theirs = (trace(m, ["a cat"], **run).images for m in (model, plain))
    assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"unet was compiled.*_orig_mod"):
        trace(model, ["a cat"], seeds=[0], steps=2, sites=[OUT])
    text = "text_encoder/layer.0/mlp.out"  # the others are as they were
    assert trace(model, ["a cat"], seeds=[0], steps=2, sites=[text])[text].isfinite().all()


def test_a_wrapped_compiled_denoiser_is_refused_too():
    pipe = tiny_sd()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    with pytest.raises(RuntimeError, match="unet was compiled"):
        trace(load(pipe), ["a cat"], seeds=[0], steps=1, sites=[OUT])


def with_lora(part="unet"):
    pipe = tiny_sd()
    names = ["to_q", "to_k", "to_v", "to_out.0"] if part == "unet" else ["out_proj", "fc2"]
    torch.manual_seed(3)
    getattr(pipe, part).add_adapter(LoraConfig(r=2, target_modules=names, init_lora_weights=False))
    return pipe


def test_a_loaded_lora_is_watched_steered_and_edited():
    model, plain = load(with_lora()), load(tiny_sd())
    assert equals_its_pipeline(model, TEXTS, 4.0)
    run = {"seeds": [0, 1, 2], "steps": 2}
    watched = trace(model, TEXTS, sites=[OUT], **run)
    assert (watched[OUT] - trace(plain, TEXTS, sites=[OUT], **run)[OUT]).abs().max() > 1e-3
    pushed = trace(model, TEXTS, sites=[OUT], interventions=[zero(OUT)], **run)
    assert not pushed[OUT].any()
    name = next(n for n in model.weights(OUT) if n.endswith("base_layer.weight"))
    edit = Edit.of(model, {name: torch.full_like(model.parameter(name), 0.5)})
    with edit.applied(model):
        assert not torch.equal(trace(model, TEXTS, sites=[OUT], **run)[OUT], watched[OUT])
    assert torch.equal(trace(model, TEXTS, sites=[OUT], **run)[OUT], watched[OUT])


def test_a_lora_loaded_or_taken_off_after_opening_is_followed(tmp_path):
    state = get_peft_model_state_dict(with_lora().unet)
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    pipe = tiny_sd()
    model = load(pipe)
    look = functools.partial(trace, prompts=["a cat"], seeds=[0], steps=1, sites=[OUT])
    without = look(model)[OUT]
    pipe.load_lora_weights(tmp_path)
    seen = look(model)[OUT]
    assert torch.equal(look(load(pipe))[OUT], seen) and not torch.allclose(seen, without, atol=1e-3)
    pipe.fuse_lora()
    assert torch.allclose(look(model)[OUT], seen, atol=1e-5)
    pipe.unload_lora_weights()
    assert torch.allclose(look(model)[OUT], seen, atol=1e-5)  # what was fused stays
    assert torch.equal(look(load(pipe))[OUT], look(model)[OUT])


def test_closed_form_edits_refuse_a_lora_beside_the_weight():
    with pytest.raises(ValueError, match=r"carries a LoRA beside its weight.*fuse_lora"):
        quickfix(load(with_lora("text_encoder")), {"cat": "dog"})


def learned(vectors):
    pipe = tiny_sd()
    torch.manual_seed(5)
    pipe.load_textual_inversion({"<toy>": torch.randn(vectors, 16)})
    return load(pipe)


@pytest.mark.parametrize("vectors", [1, 3])
def test_learned_words_are_read_as_the_pipeline_reads_them(vectors):
    model = learned(vectors)
    texts = ("a <toy> cat", "<toy>", "a cat, <toy> and <toy>")
    assert equals_its_pipeline(model, texts, 4.0)
    first, _, third = model.encode(list(texts))
    assert first.find("<toy>") == list(range(2, 2 + vectors))
    assert first.find("cat") == [2 + vectors]
    assert len(third.find("<toy>")) == 2 * vectors
    assert {first.text[slice(*first.spans[i])] for i in first.find("<toy>")} == {"<toy>"}


def test_learned_words_have_maps():
    maps = word_maps(learned(3), ["a <toy> cat"], seeds=[0], steps=2)
    assert maps.maps.sel(word="toy").max() > 0


def test_a_learned_word_loaded_after_opening_is_read_as_the_pipeline_reads_it():
    model = load(tiny_sd())
    model.pipe.load_textual_inversion({"<toy>": torch.randn(1, 16)})
    assert equals_its_pipeline(model, ("a <toy>", "a cat", "<toy>"), 4.0)
