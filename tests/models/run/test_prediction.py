"""Conversions between predictions: at pure noise, and of a kind that is not known."""

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.levels import Step
from denoscope.models.run.prediction import scales, to_eps, to_v, to_x0
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.trace import trace

NOISE, ALMOST = Step(0, 999.0, float("inf")), Step(0, 999.0, 1e9)


def ddim(kind, **options):
    return diffusers.DDIMScheduler(prediction_type=kind, **options)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
@pytest.mark.parametrize("convert", [to_x0, to_eps, to_v])
def test_at_pure_noise_conversions_are_the_limit(kind, convert):
    x, output = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    want = convert(ddim(kind), x[None], output[None], ALMOST)
    torch.testing.assert_close(convert(ddim(kind), x[None], output[None], NOISE), want)
    torch.testing.assert_close(convert(ddim(kind), x[None], output[None], [NOISE]), want)


@pytest.mark.parametrize("step", [NOISE, [ALMOST, NOISE]])
def test_noise_predicted_at_pure_noise_implies_no_picture(step):
    x = torch.ones(2, 3)
    assert torch.equal(to_eps(ddim("epsilon"), x, 2 * x, step), 2 * x)
    with pytest.raises(ValueError, match="implies no picture; take a later step"):
        to_x0(ddim("epsilon"), x, 2 * x, step)


@pytest.mark.parametrize("convert", [to_x0, to_eps, to_v])
def test_an_unknown_kind_is_refused(convert):
    scheduler = ddim("epsilon")
    scheduler.register_to_config(prediction_type="odd")
    with pytest.raises(ValueError, match="prediction_type 'odd'; known are epsilon, sample, v_prediction"):
        convert(scheduler, torch.ones(1, 3), torch.ones(1, 3), ALMOST)


@torch.no_grad()
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_zero_terminal_snr_with_trailing_spacing_is_painted_as_the_pipeline_does(name):
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipe = tiny_sd()
    pipe.scheduler = getattr(diffusers, name).from_config(
        pipe.scheduler.config, prediction_type="v_prediction", **options
    )
    generator = torch.Generator().manual_seed(0)
    latents = pipe("a cat", num_inference_steps=3, generator=generator, output_type="latent").images
    made = trace(load(pipe), ["a cat"], seeds=[0], steps=3, guidance=7.5)
    assert torch.equal(made.latents, latents)
    assert made.latents.isfinite().all()


@pytest.mark.parametrize("kind", ["flow", "v_prediction", "sample"])
def test_noise_where_none_is_left(kind):
    scheduler = (
        diffusers.FlowMatchEulerDiscreteScheduler()
        if kind == "flow"
        else diffusers.DDIMScheduler(prediction_type=kind)
    )
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 3, generator=generator) for _ in range(2))
    none, little = Step(-1, 0.0, 0.0), Step(-1, 1.0, 1e-3)
    a, s = scales(scheduler, little, x0)
    output = {"flow": eps - x0, "v_prediction": eps, "sample": x0}[kind]  # without noise
    if kind == "sample":
        with pytest.raises(ValueError, match="a predicted picture implies none; take an earlier step"):
            to_eps(scheduler, x0, output, none)
        return
    torch.testing.assert_close(to_eps(scheduler, x0, output, none), eps)
    each = to_eps(scheduler, torch.stack([x0[0], a * x0[1] + s * eps[1]]), output, [none, little])
    torch.testing.assert_close(each, eps, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("convert", [to_x0, to_eps, to_v])
@pytest.mark.parametrize("steps", [[], [ALMOST], [ALMOST] * 3])
def test_steps_are_one_or_one_a_row(kind, convert, steps):
    """Three steps beside one row would broadcast; none at all ended in an error of torch's."""
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=rf"beside {len(steps)} steps; give"):
        convert(ddim(kind), x, x, steps)
