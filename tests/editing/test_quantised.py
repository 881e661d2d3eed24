"""Edits of weights that are stored in another format than they compute in, and of quantised ones."""

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting
from torch import nn

from denoscope.editing.methods.quickfix import quickfix
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.trace import trace

FLOAT8 = torch.float8_e4m3fn
SITE = "text_encoder/layer.0/self_attn.out"


def bits(module):
    return {n: p.detach().clone().view(torch.uint8) for n, p in module.named_parameters()}


def test_an_edit_of_float8_storage_acts_and_comes_back_to_the_bit():
    pipe = tiny_sd()
    apply_layerwise_casting(
        pipe.text_encoder,
        storage_dtype=FLOAT8,
        compute_dtype=torch.float32,
        skip_modules_pattern=("embed", "norm"),
    )
    model = load(pipe)
    edit = quickfix(model, {"cat": "dog"})
    (name,) = edit.deltas
    assert model.parameter(name).dtype == FLOAT8
    before = bits(pipe.text_encoder)
    with edit.applied(model):
        changed = [n for n, b in bits(pipe.text_encoder).items() if not torch.equal(b, before[n])]
        assert [f"text_encoder.{n}".replace(".text_model", "") for n in changed] == [name]
    assert all(torch.equal(b, before[n]) for n, b in bits(pipe.text_encoder).items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_dynamically_quantised_linears_are_traced_and_their_edit_is_refused():
    pipe = tiny_sd()
    whole = trace(load(pipe), ["a cat"], seeds=[0], steps=1, sites=[SITE])[SITE]
    pipe.text_encoder = torch.ao.quantization.quantize_dynamic(
        pipe.text_encoder, {nn.Linear}, dtype=torch.qint8
    )
    model = load(pipe)
    seen = trace(model, ["a cat"], seeds=[0], steps=1, sites=[SITE])[SITE]
    assert not torch.equal(seen, whole) and (seen - whole).norm() < 0.1 * whole.norm()
    with pytest.raises(ValueError, match="self_attn.out is quantised .* quantise afterwards"):
        quickfix(model, {"cat": "dog"})


@pytest.mark.parametrize("stored", ["bytes", "with a state"])
def test_an_edit_of_quantised_weights_is_refused(stored):
    pipe = tiny_sd()
    edit = quickfix(load(pipe), {"cat": "dog"})
    (name,) = edit.deltas
    layer = pipe.text_encoder.get_submodule(
        next(n for n, _ in pipe.text_encoder.named_modules() if n.endswith("layers.0.self_attn.out_proj"))
    )
    if stored == "bytes":
        layer.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = object()
    model = load(pipe)
    with pytest.raises(ValueError, match=f"{name} is quantised .* open the model without quantisation"):
        edit.apply(model)
