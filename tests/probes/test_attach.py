"""Interventions inside the user's own pipeline call: the same as in our loop, and nothing left behind."""

import diffusers
import pytest
import torch
from PIL import Image

from denoscope.models.load import load, opened
from denoscope.models.run.context import When
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.attach import attached
from denoscope.probes.intervene import Intervention, scale
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES
from tests.models.families.test_families import opened as family

SEEDS = (5, 6, 7)


def by_hand(model, texts, guidance, steps=3):
    generators = [torch.Generator().manual_seed(s) for s in SEEDS]
    return model.run_pipeline(list(texts), generators, steps, guidance)


def site_of(model, kind="mlp.out"):
    found = [s for s in model.sites() if s.component == model.input_site.component and s.stream != "txt"]
    return next(s for s in found if s.kind in (kind, "resnet.out"))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_equal_to_our_own_loop(name, guidance):
    model, texts = family(name), FAMILIES[name].texts
    changes = [
        scale(site_of(model), -1.5, When(steps={1}, rows=(0, 2))),
        scale(
            site_of(model), 0.5, When(steps={2}, branch="uncond") if model.uses_cfg(guidance) else When({2})
        ),
    ]
    if FAMILIES[name].encoders:
        changes.append(scale(f"{FAMILIES[name].encoders[-1]}/layer.0/mlp.out", 3.0, When(rows=(1,))))
    ours = trace(model, texts, seeds=SEEDS, steps=3, guidance=guidance, interventions=changes)
    with torch.no_grad(), attached(model, *changes):
        theirs = by_hand(model, texts, guidance)
    assert torch.equal(ours.images, theirs)
    assert not torch.equal(theirs, by_hand(model, texts, guidance))


@pytest.mark.parametrize("name", ["sd", "flux-dev", "pixart-sigma", "sana", "dit", "ddpm"])
def test_the_same_moments_as_in_our_own_loop(name):
    model, texts = family(name), FAMILIES[name].texts
    seen = []
    watch = Intervention(site_of(model), lambda x, c: seen.append((c.step, len(x))))
    with attached(model, watch):
        by_hand(model, texts, 4.0, steps=4)
    assert [n for _, n in seen] == [3] * 4
    for (step, _), wanted in zip(seen, model.steps(4), strict=True):
        assert (step.index, step.t) == (wanted.index, wanted.t)
        assert step.sigma == pytest.approx(wanted.sigma)


def test_true_cfg_scale_of_flux():
    model = load(tiny_families.tiny_flux())
    model.true_cfg_scale = 3.0
    change = scale("transformer/block.0/mlp.out@img", -1.0, When(branch="uncond", rows=(1,)))
    texts = FAMILIES["flux-dev"].texts
    ours = trace(model, texts, seeds=SEEDS, steps=2, interventions=[change])
    with attached(model, change):
        theirs = by_hand(model, texts, model.default_guidance, steps=2)
    assert torch.equal(ours.images, theirs)


@pytest.fixture
def picture():
    return Image.effect_noise((16, 16), 80).convert("RGB")


def call(pipe, **options):
    return pipe(
        "a cat",
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **options,
    ).images


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: diffusers.StableDiffusionImg2ImgPipeline(**tiny.tiny_sd().components), ["image"]),
        (
            lambda: diffusers.StableDiffusionInpaintPipeline(**tiny.tiny_sd().components),
            ["image", "mask_image"],
        ),
        (
            lambda: diffusers.StableDiffusionXLImg2ImgPipeline(**tiny_families.tiny_sdxl().components),
            ["image"],
        ),
        (lambda: diffusers.FluxImg2ImgPipeline(**tiny_families.tiny_flux().components), ["image"]),
    ],
)
def test_pipelines_that_begin_with_a_picture(make, options, picture):
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    given = {name: picture for name in options} | {"strength": 0.5, "height": 16, "width": 16}
    if "Img2Img" in type(pipe).__name__ and "Flux" not in type(pipe).__name__:
        given = {k: v for k, v in given.items() if k not in ("height", "width")}
    plain, seen = call(pipe, **given), []
    site = site_of(opened(pipe))
    watch = Intervention(site, lambda x, c: seen.append((c.step.index, round(c.step.t))))
    with attached(pipe, watch):
        watched = call(pipe, **given)
    with attached(pipe, scale(site, 3.0, When(steps={1}))):
        changed = call(pipe, **given)
    assert (watched == plain).all() and (changed != plain).any()
    assert [i for i, _ in seen] == [0, 1]  # half the strength: half the steps
    assert seen[0][1] < 800  # and those of the second half
    assert (call(pipe, **given) == plain).all()


def test_controlnet(picture):
    sd = tiny.tiny_sd()
    net = diffusers.ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=(8, 16))
    pipe = diffusers.StableDiffusionControlNetPipeline(**sd.components, controlnet=net.eval())
    pipe.set_progress_bar_config(disable=True)
    plain, seen = call(pipe, image=picture), []
    with attached(
        pipe, Intervention("unet/mid.res.0/resnet.out", lambda x, c: seen.append((c.step.index, len(x))))
    ):
        watched = call(pipe, image=picture)
    with attached(pipe, scale("unet/mid.res.0/resnet.out", -4.0, When(branch="uncond"))):
        changed = call(pipe, image=picture)
    assert (watched == plain).all() and (changed != plain).any() and seen == [(i, 1) for i in range(4)]


def test_a_second_call_counts_from_the_beginning():
    pipe, seen = tiny.tiny_sd(), []
    watch = Intervention("unet/mid.res.0/resnet.out", lambda _, c: seen.append(c.step.index))
    with attached(pipe, watch):
        call(pipe)
        call(pipe)
    assert seen == [0, 1, 2, 3] * 2


def test_an_error_inside_leaves_nothing_behind(watch):
    model = load(tiny.tiny_sd())
    before = watch(model)

    def fail(_x, _step):
        raise RuntimeError("on purpose")

    with (
        pytest.raises(RuntimeError, match="on purpose"),
        attached(model, Intervention("unet/mid.res.0/resnet.out", fail)),
    ):
        call(model.pipe)
    assert before.changes() == [] and model.call is None
    assert "step" not in vars(model.pipe.scheduler) and "set_timesteps" not in vars(model.pipe.scheduler)


def test_our_own_loop_inside_is_not_confused():
    model = load(tiny.tiny_sd())
    plain = trace(model, ["a cat"], seeds=[0], steps=3).latents
    with attached(model):
        assert torch.equal(trace(model, ["a cat"], seeds=[0], steps=3).latents, plain)


def test_another_scheduler_and_a_callback():
    pipe = tiny.tiny_sd()
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    halved = []

    def callback(_pipe, i, _t, values):
        halved.append(i)
        return {"latents": values["latents"] * 0.5}

    plain = call(pipe, callback_on_step_end=callback)
    with attached(pipe, scale("unet/mid.res.0/resnet.out", -4.0, When(steps={3}))):
        changed = call(pipe, callback_on_step_end=callback)
    assert halved == [0, 1, 2, 3] * 2 and (plain != changed).any()


def test_another_familys_pipeline_is_refused():
    class OtherPipeline:
        components: dict = {}

    with pytest.raises(ValueError, match="OtherPipeline is not supported"), attached(OtherPipeline()):
        pass
