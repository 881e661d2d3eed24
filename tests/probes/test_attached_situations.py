"""Situations in a user's own call in which rows, steps or modules are not what they look like."""

import diffusers
import pytest
import torch
from peft import LoraConfig
from PIL import Image

from denoscope.models.errors import StateError
from denoscope.models.load import opened
from denoscope.models.places.account import AccountError
from denoscope.models.run.context import When
from denoscope.models.synthetic import tiny
from denoscope.probes.attach import attached
from denoscope.probes.intervene import Intervention, scale, zero

MID = "unet/mid.res.0/resnet.out"
VALUE = "unet/mid.attn.0.0/cross_attn.v_proj"
PICTURE = Image.effect_noise((16, 16), 80).convert("RGB")
BOTH = {"uncond": slice(0, 1), "cond": slice(1, 2)}


def call(pipe, prompt="a cat", steps=2, **options):
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "latent", **options}
    with torch.no_grad():
        return pipe(prompt, num_inference_steps=steps, **options).images


def pipeline(kind, **more):
    parts = tiny.tiny_sd().components
    if "Pix2Pix" in kind:
        unet = parts["unet"]
        with torch.random.fork_rng():
            torch.manual_seed(1)
            unet.conv_in = torch.nn.Conv2d(8, unet.conv_in.out_channels, 3, padding=1)
        unet.register_to_config(in_channels=8)
    pipe = getattr(diffusers, kind)(**{**parts, "requires_safety_checker": False, **more})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def by_hand(pipe, **options):
    """What the module at MID gives at each of its calls, by torch's own hook."""
    seen = []
    hook = opened(pipe).place(MID).module.register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    call(pipe, **options)
    hook.remove()
    return seen


def test_three_branches_of_instruct_pix2pix_are_asked_for_and_known():
    pipe = pipeline("StableDiffusionInstructPix2PixPipeline")
    with (
        pytest.raises(ValueError, match="StableDiffusionInstructPix2PixPipeline is not known"),
        attached(pipe),
    ):
        pass
    rows = {"cond": slice(0, 1), "image": slice(1, 2), "uncond": slice(2, 3)}
    options = {"image": PICTURE, "guidance_scale": 5.0, "image_guidance_scale": 2.0}
    seen = by_hand(pipe, **options)
    for i, branch in enumerate(rows):
        with attached(pipe, trace=MID, when=When(branch=branch), rows=rows) as run:
            call(pipe, **options)
        assert torch.equal(run.trace[MID], torch.stack([x[i : i + 1] for x in seen]))
    with (
        pytest.raises(AccountError, match="do not share out a batch of 3"),
        attached(pipe, zero(MID), rows=BOTH),
    ):
        call(pipe, **options)


def test_passes_of_self_attention_guidance_are_refused():
    """It calls the network once more a step, with blurred latents, for the unconditional rows alone."""
    pipe = pipeline("StableDiffusionSAGPipeline")
    with pytest.raises(ValueError, match="StableDiffusionSAGPipeline is not known"), attached(pipe):
        pass
    with (
        pytest.raises(AccountError, match="do not share out a batch of 1"),
        attached(pipe, zero(MID), rows=BOTH),
    ):
        call(pipe, sag_scale=0.7)


def test_views_of_a_panorama_are_calls_of_one_step():
    """Each is changed, but which of them a trace would be of is not known."""
    pipe = pipeline("StableDiffusionPanoramaPipeline")
    with pytest.raises(ValueError, match="StableDiffusionPanoramaPipeline is not known"), attached(pipe):
        pass
    wide = {"height": 512, "width": 640}  # it counts views in eighths: three of 64 x 64
    seen = []
    look = Intervention(MID, lambda x, c: seen.append((c.index, len(x))))
    with attached(pipe, look, rows=BOTH):
        call(pipe, **wide, steps=1)
    assert seen == [(0, 1)] * 3
    with pytest.raises(AccountError, match="traced twice at step 0"), attached(pipe, trace=MID, rows=BOTH):
        call(pipe, **wide, steps=1)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_one_seed_for_a_batch_is_no_guidance(guidance):
    pipe, texts = tiny.tiny_sd(), ["a cat", "a red dog"]
    seen = by_hand(pipe, prompt=texts, guidance_scale=guidance)
    with attached(pipe, trace=MID) as run:
        call(pipe, texts, guidance_scale=guidance)
    assert torch.equal(run.trace[MID], torch.stack([x[-2:] for x in seen]))
    assert run.trace.seeds == ()  # no sample has one of its own
    with attached(pipe, zero(MID).on(1)):
        changed = call(pipe, texts, guidance_scale=guidance)
    plain = call(pipe, texts, guidance_scale=guidance)
    assert [not torch.equal(a, b) for a, b in zip(changed, plain, strict=True)] == [False, True]


def test_latents_that_are_given_are_no_seeds():
    pipe = tiny.tiny_sd()
    generator = [torch.Generator().manual_seed(5)]
    with attached(pipe, trace=MID) as run:
        call(pipe, generator=generator)
        call(pipe, generator=generator, latents=torch.ones(1, 4, 8, 8))
    assert [t.seeds for t in run.traces] == [(5,), ()]


def lora(pipe):
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))


def network(pipe):
    pipe.unet = tiny.tiny_sd(seed=1).unet


@pytest.mark.parametrize("change", [lora, network])
def test_what_a_callback_puts_in_the_way_is_refused(change):
    """The steps after it would not be watched."""
    pipe = tiny.tiny_sd()

    def callback(pipe, i, _t, values):
        if i == 0:
            change(pipe)
        return values

    with (
        pytest.raises(
            StateError, match="lies elsewhere since it is watched|unet was replaced while attached"
        ),
        attached(pipe, scale(VALUE, 2.0)),
    ):
        call(pipe, callback_on_step_end=callback)


def test_a_second_pipeline_of_the_same_parts_with_its_own_scheduler_and_guidance():
    first = tiny.tiny_sd()
    second = diffusers.StableDiffusionPipeline(**{**first.components, "requires_safety_checker": False})
    second.scheduler = diffusers.EulerDiscreteScheduler.from_config(first.scheduler.config)
    for pipe, guidance in ((first, 4.0), (second, 1.0)):
        with attached(pipe, trace=MID) as run:
            call(pipe, guidance_scale=guidance)
        assert [s.t for s in run.trace.steps] == pipe.scheduler.timesteps.tolist()
        assert run.trace.about["scheduler"] == type(pipe.scheduler).__name__
