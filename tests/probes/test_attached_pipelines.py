"""Every entry of the table of pipelines: rows, steps, texts and latents are those of the user's own call."""

import diffusers
import pytest
import torch
from PIL import Image

from denoscope.models.load import opened as opening
from denoscope.models.run.context import When
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.probes.attach import attached
from denoscope.probes.calls.pipelines import PIPELINES
from denoscope.probes.intervene import Intervention
from denoscope.probes.trace import trace
from tests.models.families.test_families import shortened

pytestmark = pytest.mark.stress  # each is long; make stress

TEXTS, OTHERS = ["a cat", "a red dog"], ["a Cook emoji", "a dog"]
PICTURE = Image.effect_noise((16, 16), 80).convert("RGB")
MASK = Image.new("L", (16, 16), 255)
MASK.paste(0, (0, 0, 8, 16))
SHORT = {"max_sequence_length": 24}
SANA = {"complex_human_instruction": ["Paint well.", "What to paint: "], "use_resolution_binning": False}
UNBINNED = {"use_resolution_binning": False, "height": 16, "width": 16, "clean_caption": False}
IMAGE = {"image": [PICTURE] * 2, "strength": 0.5}
MASKED = {**IMAGE, "mask_image": [MASK] * 2, "height": 16, "width": 16}


def controlnet():
    sd = tiny.tiny_sd()
    net = diffusers.ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=(8, 16))
    torch.nn.init.constant_(net.controlnet_mid_block.weight, 0.1)
    return diffusers.StableDiffusionControlNetPipeline(**sd.components, controlnet=net.eval())


def other(kind, make):
    return lambda: getattr(diffusers, kind)(**make().components)


MADE = {
    "StableDiffusionPipeline": (tiny.tiny_sd, {}),
    "StableDiffusionImg2ImgPipeline": (other("StableDiffusionImg2ImgPipeline", tiny.tiny_sd), IMAGE),
    "StableDiffusionInpaintPipeline": (other("StableDiffusionInpaintPipeline", tiny.tiny_sd), MASKED),
    "StableDiffusionControlNetPipeline": (controlnet, {"image": [PICTURE] * 2}),
    "StableDiffusionXLPipeline": (tiny_families.tiny_sdxl, {}),
    "StableDiffusionXLImg2ImgPipeline": (
        other("StableDiffusionXLImg2ImgPipeline", tiny_families.tiny_sdxl),
        IMAGE,
    ),
    "StableDiffusionXLInpaintPipeline": (
        other("StableDiffusionXLInpaintPipeline", tiny_families.tiny_sdxl),
        MASKED,
    ),
    "StableDiffusion3Pipeline": (tiny_families.tiny_sd3, SHORT),
    "StableDiffusion3Img2ImgPipeline": (
        other("StableDiffusion3Img2ImgPipeline", tiny_families.tiny_sd3),
        {**IMAGE, **SHORT, "height": 16, "width": 16},
    ),
    "FluxPipeline": (tiny_families.tiny_flux, {**SHORT, "height": 16, "width": 16}),
    "FluxImg2ImgPipeline": (
        other("FluxImg2ImgPipeline", tiny_families.tiny_flux),
        {**IMAGE, **SHORT, "height": 16, "width": 16},
    ),
    "PixArtAlphaPipeline": (tiny_families.tiny_pixart_alpha, {**SHORT, **UNBINNED}),
    "PixArtSigmaPipeline": (tiny_families.tiny_pixart_sigma, {**SHORT, **UNBINNED}),
    "SanaPipeline": (
        tiny_families.tiny_sana,
        {**SHORT, **SANA, "clean_caption": False, "height": 32, "width": 32},
    ),
    "DiTPipeline": (tiny_families.tiny_dit, {}),
    "LDMTextToImagePipeline": (tiny_families.tiny_ldm, {}),
    "DDPMPipeline": (tiny.tiny_ddpm, {}),
    "DDIMPipeline": (tiny.tiny_ddim, {}),
}
READING = [n for n in MADE if n not in ("DiTPipeline", "DDPMPipeline", "DDIMPipeline")]
NEGATIVES = [n for n in READING if n != "LDMTextToImagePipeline"]
PLAIN = [n for n in MADE if not any(k in n for k in ("Img2Img", "Inpaint", "ControlNet"))]


def test_every_entry_is_tested():
    assert set(MADE) == set(PIPELINES)


def opened(name):
    make, _ = MADE[name]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeds(n=2):
    return [torch.Generator().manual_seed(s) for s in range(5, 5 + n)]


def call(pipe, texts=TEXTS, negative=None, guidance=4.0, **more):
    """One call as its users make it; unguided ones have a scale of 1."""
    name = type(pipe).__name__
    given = {**MADE[name][1], "num_inference_steps": 4, "output_type": "np", **more}
    if name.startswith("DD"):
        return pipe(batch_size=2, generator=seeds(), **given).images
    if name == "DiTPipeline":
        return pipe([0, 2], generator=seeds(), guidance_scale=guidance, **given).images
    if name.startswith("Flux"):
        given |= {
            "true_cfg_scale": guidance,
            "negative_prompt": negative or [""] * 2 if guidance > 1 else None,
        }
    else:
        given |= {"guidance_scale": guidance}
        if negative is not None and guidance > 1:
            given["negative_prompt"] = negative
    return pipe(texts, generator=seeds(), **given).images


def site_of(model):
    found = [s for s in model.sites() if s.component == model.input_site.component and s.stream != "txt"]
    return next(
        s for s in found if s.kind in ("mlp.out", "resnet.out") and ("mid" in str(s) or "block.0" in str(s))
    )


def watched(pipe, *, sites=(), branch="cond", **options):
    wanted = [site_of(opening(pipe)), *sites]
    with torch.no_grad(), attached(pipe, trace=wanted, when=When(branch=branch)) as run:
        images = call(pipe, **options)
    return run, images, run.trace[wanted[0]]


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.stress), 4.0])
@pytest.mark.parametrize("name", MADE)
def test_watching_changes_nothing_and_the_trace_ends_in_the_picture(name, guidance):
    pipe = opened(name)
    plain = call(pipe, guidance=guidance)
    run, images, acts = watched(pipe, guidance=guidance)
    made = run.trace
    assert (images == plain).all()
    assert (made.images.permute(0, 2, 3, 1).numpy() == plain).all()
    steps = 2 if "strength" in MADE[name][1] else 4
    assert [s.index for s in made.steps] == list(range(steps))
    assert made.kept_steps == made.steps and acts.shape[:2] == (steps, 2)
    line = made.account.lines[0]
    assert (line.calls, line.steps, line.rows, line.branches) == (
        steps,
        tuple(range(steps)),
        2 * steps,
        ("cond",),
    )
    assert made.seeds == (5, 6)
    assert (call(pipe, guidance=guidance) == plain).all()


@pytest.mark.parametrize("name", PLAIN)
def test_equal_to_our_own_loop_to_the_bit(name):
    pipe = opened(name)
    run, _, acts = watched(pipe)
    model, site = shortened(run.model), site_of(run.model)
    texts = {"DiTPipeline": ["0", "2"], "DDPMPipeline": ["", ""], "DDIMPipeline": ["", ""]}.get(name, TEXTS)
    if name == "FluxPipeline":
        model.true_cfg_scale = 4.0
    scale = 3.5 if name == "FluxPipeline" else 4.0
    size = None if name.startswith(("DiT", "DD")) else run.trace.images.shape[-2:]
    ours = trace(model, texts, seeds=[5, 6], steps=4, guidance=scale, sites=[site], size=size)
    assert torch.equal(ours[site], acts)
    assert torch.equal(ours.latents, run.trace.latents)
    assert [(s.index, s.t) for s in ours.steps] == [(s.index, s.t) for s in run.trace.steps]
    assert [s.sigma for s in run.trace.steps] == pytest.approx([s.sigma for s in ours.steps])
    assert [p.text for p in run.trace.prompts] == ([] if name.startswith("DD") else texts)


@pytest.mark.parametrize("name", READING)
def test_rows_are_those_who_read_their_text(name):
    """At step 0 nothing is guided yet: each branch's rows are those of an unguided call with its text."""
    pipe = opened(name)
    negative = OTHERS if name in NEGATIVES else None
    _, _, alone = watched(pipe, texts=TEXTS, guidance=1.0)
    _, _, cond = watched(pipe, texts=TEXTS, negative=negative)
    torch.testing.assert_close(cond[0], alone[0], atol=1e-5, rtol=1e-4)
    # Sana reads an instruction before the prompt alone, XL nothing at all for no text
    given = {"complex_human_instruction": None} if name == "SanaPipeline" else {}
    _, _, told = watched(pipe, texts=negative or ["", ""], guidance=1.0, **given)
    _, _, uncond = watched(pipe, texts=TEXTS, negative=negative, branch="uncond")
    torch.testing.assert_close(uncond[0], told[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(uncond[0], cond[0], atol=1e-4)


@pytest.mark.parametrize("name", READING)
def test_texts_are_told_apart_by_their_tokens(name):
    pipe = opened(name)
    negative = OTHERS if name in NEGATIVES else None
    for encoder in opening(pipe).text_encoders:
        site = f"{encoder}/layer.0/mlp.out"
        alone = watched(pipe, sites=[site], guidance=1.0)[0].trace[site]
        cond = watched(pipe, sites=[site], negative=negative)[0].trace[site]
        uncond = watched(pipe, sites=[site], negative=negative, branch="uncond")[0].trace[site]
        assert torch.equal(cond, alone) and len(cond) == 2
        assert uncond.shape[0] == 2 and not torch.equal(uncond, cond)
        # Sana reads an instruction before the prompt alone
        given = {"complex_human_instruction": None} if name == "SanaPipeline" else {}
        same = watched(pipe, sites=[site], texts=negative or ["", ""], guidance=1.0, **given)[0].trace[site]
        assert torch.equal(uncond, same)


@pytest.mark.parametrize("name", READING)
def test_prompts_of_the_rows_are_known(name):
    pipe, seen = opened(name), {}
    negative = OTHERS if name in NEGATIVES else None
    with attached(pipe) as run:
        site = site_of(run.model)
    look = Intervention(site, lambda _, c: seen.update({c.branch: c.prompts}), When(branch=None))
    with torch.no_grad(), attached(pipe, look):
        call(pipe, negative=negative)
    assert [p.text for p in seen["cond"]] == TEXTS
    assert [p.text for p in seen["uncond"]] == (negative or ["", ""])
    dog = seen["cond"][1]
    assert "dog" in "".join(dog.tokens[i] for i in dog.find("dog")).lower()
    assert dog.embeds.shape[0] == len(dog.tokens)
    with torch.no_grad():
        assert dog.tokens == shortened(run.model).encode(TEXTS)[1].tokens
