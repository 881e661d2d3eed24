"""Pictures to latents: equal to diffusers' encoding, the inverse of decoding, refused where they must be."""

import diffusers
import pytest
import torch

from denoscope.models.families._images import encoded
from denoscope.models.load import load
from denoscope.models.synthetic import tiny, tiny_families
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from tests.models.families.test_families import FAMILIES, opened

IMG2IMG = {
    "sd": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline,
    "sd3": diffusers.StableDiffusion3Img2ImgPipeline,
    "flux-dev": diffusers.FluxImg2ImgPipeline,
    "flux-schnell": diffusers.FluxImg2ImgPipeline,
}


def pictures(model, n=2, seed=5):
    shape = (n, 3, *model.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def by_mode(encode):
    """Encoding whose draws from the posterior are its mode."""

    def changed(x):
        out = encode(x)
        out.latent_dist.sample = lambda generator: out.latent_dist.mode()  # noqa: ARG005
        return out

    return changed


class Unnoised:
    """A scheduler that adds no noise."""

    def add_noise(self, latents, noise, t):  # noqa: ARG002
        return latents

    def scale_noise(self, latents, t, noise):  # noqa: ARG002
        return latents


@pytest.mark.parametrize("name", IMG2IMG)
@torch.no_grad()
def test_it_equals_what_the_img2img_pipeline_encodes(name, monkeypatch):
    model = opened(name)
    x, n = pictures(model), 2
    pipe = IMG2IMG[name](**model.pipe.components)
    ready = pipe.image_processor.preprocess(x)
    ours = model.encode_image(x)
    monkeypatch.setattr(pipe.vae, "encode", by_mode(pipe.vae.encode))
    monkeypatch.setattr(pipe, "scheduler", Unnoised())
    generators = [torch.Generator() for _ in range(n)]
    if name.startswith("flux"):
        channels = model.pipe.transformer.config.in_channels // 4
        args = (ready, None, n, channels, *model.size, model.dtype, model.device, generators)
        theirs, _ = pipe.prepare_latents(*args)
    else:
        theirs = pipe.prepare_latents(ready, None, n, 1, model.dtype, model.device, generators)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_family_encodes_to_its_own_latents_each_row_by_itself(name):
    model = opened(name)
    x = pictures(model)
    latents = model.encode_image(x)
    assert latents.shape == model.noise([0, 1]).shape and latents.dtype == model.noise([0]).dtype
    assert torch.equal(model.encode_image(x[1:]), latents[1:])
    assert not torch.equal(latents[:1], latents[1:])
    assert model.decode(latents).shape == x.shape


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("ddpm", "ldm", "dit")])
@torch.no_grad()
def test_scales_are_those_that_decoding_undoes(name, monkeypatch):
    """With an autoencoder that does nothing, decode(encode(x)) is x."""
    model = load(FAMILIES[name].make())
    vae = model.pipe.vae
    kept = {}

    def encode(x):
        kept["x"] = x
        return type("Out", (), {"latents": torch.zeros(1, *model_latents(model)) + 0.25})()

    def decode(z, return_dict):  # noqa: ARG001
        kept["z"] = z
        return (z,)

    monkeypatch.setattr(vae, "encode", encode)
    monkeypatch.setattr(vae, "decode", decode)
    model.decode(model.encode_image(pictures(model, 1)))
    assert kept["x"].min() < -0.9 and kept["x"].max() > 0.9
    torch.testing.assert_close(kept["z"], torch.full_like(kept["z"], 0.25))


def model_latents(model):
    return getattr(model, "_unpacked", model.latent_shape)


@torch.no_grad()
def test_means_and_deviations_of_latents_are_undone():
    vae = tiny.tiny_vae(latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 0.5, 3.0])
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    raw = vae.encode(x).latent_dist.mode()
    got = encoded(vae, x, torch.float32)
    for c, (mean, std) in enumerate(zip([0.1, -0.2, 0.3, 0.4], [1.0, 2.0, 0.5, 3.0], strict=True)):
        expected = (raw[:, c] - mean) / std * vae.config.scaling_factor
        torch.testing.assert_close(got[:, c], expected)


@torch.no_grad()
def test_a_vector_quantised_autoencoder_encodes():
    vae = diffusers.VQModel(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=3, num_vq_embeddings=8
    )
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(
        encoded(vae, x, torch.float32), vae.encode(x).latents * vae.config.scaling_factor
    )


@torch.no_grad()
def test_pictures_of_the_embedded_model_come_back(emoji):
    prompts = ["a noto emoji of a dog", "a noto emoji of an apple"]
    final = list(emoji.sample(prompts, seeds=[0, 1], steps=6))[-1].latents
    x = emoji.decode(final)
    back = emoji.decode(emoji.encode_image(x))
    psnr = -10 * torch.log10((x - back).square().mean(dim=(1, 2, 3)))
    assert (psnr > 20).all(), psnr


@torch.no_grad()
def test_pixels_come_back_to_rounding():
    model = opened("ddpm")
    x = pictures(model)
    torch.testing.assert_close(model.decode(model.encode_image(x)), x)


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_an_autoencoder_that_overflows_encodes_in_float32_and_stays_as_it_was(kept):
    model = load(tiny_families.tiny_sdxl())
    x = pictures(model)
    model.pipe.vae.to(kept)
    rounded = {k: v.clone() for k, v in model.pipe.vae.state_dict().items()}
    got = model.encode_image(x)
    assert model.pipe.vae.dtype == kept
    assert all(torch.equal(v, rounded[k]) for k, v in model.pipe.vae.state_dict().items())
    model.pipe.vae.to(torch.float32)
    assert torch.equal(got, model.encode_image(x))


def test_gradients_flow_to_the_picture():
    model = opened("sd")
    x = pictures(model).requires_grad_()
    model.encode_image(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.misshapen
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x[0], r"add the sample axis: images\[None\]"),
        (lambda x: x[:, :1], r"give \[sample, 3, height, width\]"),
        (lambda x: x[:0], r"give \[sample, 3, height, width\]"),
        (lambda x: x[..., :8], r"images are 16 by 8 pixels, but .* takes 16 by 16; resize .*size=\(16, 8\)"),
        (lambda x: x * 2 - 1, r"images lie in -.*\(images \+ 1\) / 2"),
        (lambda x: x * 255, r"images lie in 0.*images / 255"),
        (lambda x: x / 0, "NaN or infinite"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_with_the_fix(spoil, says):
    model = opened("sd")
    with pytest.raises(ValueError, match=says):
        model.encode_image(spoil(pictures(model)))


@pytest.mark.misshapen
@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"give a float tensor .*in 0\.\.1"),
        ([[0.5]], r"images is \[\[0\.5\]\]; it is a Tensor"),
    ],
)
def test_bytes_and_lists_are_refused_with_the_fix(images, says):
    with pytest.raises(TypeError, match=says):
        opened("sd").encode_image(images)


def test_models_without_pictures_say_so():
    with pytest.raises(ValueError, match="analytic paints no pictures"):
        Analytic(two_by_two()).start_at(torch.zeros(1, 3, 8, 8), 0, [0], steps=2)


def test_points_are_pictures_of_the_exact_denoiser_and_pictures_are_no_points():
    model = Analytic(two_by_two())
    points = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode_image(points), points.to(model.dtype))
    with pytest.raises(ValueError, match=r"points are \(1, 3, 8, 8\); give \[sample, 2\]"):
        model.encode_image(torch.zeros(1, 3, 8, 8))
