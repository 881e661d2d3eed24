"""Number formats: what a network computes in, finite weights, numbers that a format cannot hold."""

import pytest
import torch
from torch import nn

from denoscope.models.formats import compute_device, compute_dtype, is_finite, is_quantised
from denoscope.models.load import load
from denoscope.models.places.attention import attention_probs
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import scale
from denoscope.probes.trace import trace

SITE = "unet/mid.attn.0.0/cross_attn.out"
FLOAT8 = torch.float8_e4m3fn


def cast(dtype=torch.float32):
    pipe = tiny_sd()
    pipe.unet.enable_layerwise_casting(storage_dtype=FLOAT8, compute_dtype=dtype)
    return pipe


def test_weights_stored_in_float8_are_computed_in_another_format():
    pipe = cast(torch.bfloat16)
    assert FLOAT8 in {p.dtype for p in pipe.unet.parameters()}
    assert compute_dtype(pipe.unet) == torch.bfloat16 and load(pipe).dtype == torch.bfloat16
    assert compute_dtype(nn.Linear(2, 2, dtype=torch.float16)) == torch.float16
    assert compute_dtype(nn.Identity()) == torch.float32


@torch.no_grad()
def test_float8_storage_is_traced_and_steered_as_the_pipeline_paints_it():
    pipe = cast()
    generator = torch.Generator().manual_seed(0)
    latents = pipe("a cat", num_inference_steps=2, generator=generator, output_type="latent").images
    run = trace(load(pipe), ["a cat"], seeds=[0], steps=2, sites=[SITE], guidance=7.5)
    assert torch.equal(run.latents, latents) and run[SITE].isfinite().all()
    steered = trace(load(pipe), ["a cat"], seeds=[0], steps=2, guidance=7.5, interventions=[scale(SITE, 3)])
    assert not torch.equal(steered.latents, latents)


@pytest.mark.parametrize("dtype", [FLOAT8, torch.float16, torch.bfloat16, torch.float64])
def test_damage_is_seen_in_every_format(dtype):
    x = torch.ones(3, 4).to(dtype)
    assert is_finite(x)
    x[1, 2] = float("nan")
    assert not is_finite(x)


def test_integers_are_finite_and_large_halves_do_not_overflow_the_sum():
    assert is_finite(torch.ones(3, dtype=torch.int8))
    assert is_finite(torch.full((100,), 6e4, dtype=torch.float16))


@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_probabilities_in_half_precision_are_right_where_queries_are_large(dtype, off):
    """q·k is beyond float16's 65504, and its rounding in bfloat16 is larger than the differences."""
    torch.manual_seed(0)
    q, k = (300 + torch.randn(1, 2, 8, 16)).to(dtype), (300 + torch.randn(1, 2, 5, 16)).to(dtype)
    got = attention_probs(q, k)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), attention_probs(q.double(), k.double()), rtol=off, atol=off)


def test_a_trace_refuses_to_keep_infinity_for_what_was_finite(tmp_path):
    model, run = load(tiny_sd()), {"seeds": [0], "steps": 1, "sites": SITE}
    large = [scale(SITE, 1e7)]
    for store in (None, tmp_path / "store"):
        with pytest.raises(ValueError, match=rf"values at {SITE} are beyond the 65504 .*bfloat16"):
            trace(model, ["a cat"], interventions=large, dtype=torch.float16, store=store, **run)
    assert not (tmp_path / "store").exists()
    kept = trace(model, ["a cat"], interventions=large, dtype=torch.bfloat16, **run)
    assert kept[SITE].isfinite().all() and kept[SITE].abs().max() > 65504
    assert trace(model, ["a cat"], dtype=torch.float16, **run)[SITE].dtype == torch.float16


def test_a_network_without_weights_is_anywhere():
    assert compute_device(nn.Identity()) == torch.device("cpu")
    holder = nn.Identity()
    holder.register_buffer("table", torch.zeros(1, device="meta"))
    assert compute_device(holder) == torch.device("meta")


class Packed(torch.Tensor):
    """Like the weights of torchao and quanto: a class of its own, of which torch computes nothing."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in {"sum", "isfinite", "add"}:
            raise NotImplementedError(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_quantised_weights_are_not_summed():
    packed = torch.ones(2, 2).as_subclass(Packed)
    assert is_quantised(packed) and is_finite(packed)
    stored = nn.Parameter(torch.ones(4, 1, dtype=torch.uint8), requires_grad=False)
    assert is_quantised(stored) and is_finite(stored)
    assert not is_quantised(nn.Parameter(torch.ones(2))) and not is_quantised(torch.ones(2).to(FLOAT8))
