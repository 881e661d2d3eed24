"""What follows from an adapter: names, sizes, parameters, times, and whose the texts are."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.levels import Step
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, When
from tests.models.families.test_families import opened

TEXT = "text_encoder/layer.0/mlp.out"


def test_names_and_guidance_that_are_given_count(tiny):
    kind = type(tiny)
    assert kind(tiny.pipe).name == "StableDiffusionPipeline" and kind(tiny.pipe, "mine").name == "mine"
    assert kind(tiny.pipe).default_guidance == 7.5 and kind(tiny.pipe, "", 0.0).default_guidance == 0.0


def test_another_size_is_another_model_of_the_same_networks(tiny):
    wide = tiny.sized((16, 32))
    assert wide is not tiny and wide.size == (16, 32) and tiny.size == (16, 16)
    assert wide.picture_grid == (8, 16) and wide.noise([0]).shape[-2:] == (8, 16)
    assert wide.pipe is tiny.pipe and wide.live is tiny.live
    assert tiny.sized(None) is tiny and tiny.sized((16, 16)) is tiny


@pytest.mark.parametrize("size", [(16,), (16, 16, 16), (16, 20), (0, 16), (16, -16)])
def test_sizes_that_cannot_be_painted_are_refused(tiny, size):
    with pytest.raises(ValueError, match=r"paints \(height, width\) in multiples of 8 pixels, .*\(16, 16\)"):
        tiny.sized(size)


def test_a_model_without_pictures_takes_no_size():
    with pytest.raises(ValueError, match=r"size is \(8, 8\), but .* paints no pictures; leave it out"):
        Analytic(two_by_two()).sized((8, 8))


def test_parameters_are_found_by_the_names_that_weights_gives(tiny):
    site = "unet/mid.attn.0.0/cross_attn.out"
    found = tiny.weights(site)
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    assert list(found) == [f"{path}.weight", f"{path}.bias"]
    assert all(tiny.parameter(name) is p for name, p in found.items())
    assert tiny.weights("unet/in/text") == {} and tiny.module("unet/in/text") is tiny.denoiser
    for wrong, meant in (
        ("unet.conv_in.wieght", "unet.conv_in.weight"),
        ("net.conv_in.bias", "unet.conv_in.bias"),
    ):
        with pytest.raises(LookupError, match=f"no parameter '{wrong}'; did you mean .*'{meant}'"):
            tiny.parameter(wrong)
    with pytest.raises(LookupError, match="no parameter 'unet'"):
        tiny.parameter("unet")


def test_whole_times_are_told_as_integers_and_others_as_they_are(tiny):
    whole, between = Step(0, 300.0, 1.0), Step(0, 300.5, 1.0)
    assert tiny.time(whole).dtype == torch.int64 and tiny.time(between).dtype == torch.float32
    assert tiny.time(whole) == 300 and tiny.time(between) == 300.5 and tiny.time(whole).ndim == 0
    assert tiny.time(whole, 3).tolist() == [300, 300, 300]
    assert tiny.time([whole, Step(0, 20.0, 0.1)]).tolist() == [300, 20]


@torch.no_grad()
@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_texts_that_are_read_belong_to_the_samples_that_they_are_of(tiny, branch):
    """The first is given encoded, so that only the second is read."""
    seen = []
    look = Intervention(
        TEXT,
        lambda x, c: seen.append((c.branch, c.samples, [p.text for p in c.prompts])),
        When(branch=branch, rows=(1,)),
    )
    given = [*tiny.encode(["a cat"]), "a dog"]
    prompts, negative = (given, "") if branch == "cond" else (["a", "b"], given)
    how = {"seeds": [0, 1], "steps": 1, "guidance": 2.0, "interventions": [look]}
    list(tiny.sample(prompts, negative=negative, **how))
    assert seen == [(branch, (1,), ["a dog"])]


def test_one_text_for_a_list_is_refused(tiny):
    for read in (tiny.encode, tiny.negative):
        with pytest.raises(TypeError, match=r"single string 'a cat'; give a list: \['a cat'\]"):
            read("a cat")
    assert tiny.call is None


def test_what_reads_text_is_told_in_order():
    assert opened("sdxl").text_encoders == ("text_encoder", "text_encoder_2")
    assert opened("ddpm").text_encoders == ()


def test_no_such_site_names_near_misses(tiny):
    with pytest.raises(
        LookupError, match=r"no site 'unet/mid.res.0/resid.pots'; did you mean 'unet/mid.res.0/"
    ):
        tiny.place("unet/mid.res.0/resid.pots")


def test_the_scheduler_and_networks_are_those_of_the_pipeline_by_now():
    model = load(tiny_sd())
    model.pipe.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    model.pipe.unet = tiny_sd(seed=1).unet.train()
    assert model.scheduler is model.pipe.scheduler and model.denoiser is model.components["unet"]
    assert model.place("unet/in/text").module is model.pipe.unet and model.pipe.unet.training


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "pixart-sigma", "sana", "ldm"])
def test_of_no_texts_there_are_no_prompts(name):
    assert opened(name).encode([]) == []
