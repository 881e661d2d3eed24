"""The hash of weights: what changes it, what does not, and that the cache never hides a change."""

import copy
import gc
import hashlib
import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from torch import nn

from denoscope import Edit, load
from denoscope.models.errors import StateError
from denoscope.models.store import fingerprint as room
from denoscope.models.store.fingerprint import SPOTS, fingerprint, tensor_hash
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.zoo import folder

WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"


@pytest.fixture
def model():
    return load(tiny_sd())


def weight(model, name=WEIGHT):
    return model.parameter(name)


def test_a_tensor_hash_is_the_documented_one():
    """Edits that were saved before name their weights by it: shape as JSON, then the values in float32."""
    expected = hashlib.sha256(json.dumps([2, 1]).encode() + struct.pack("<2f", 0.5, -2.0)).hexdigest()
    assert tensor_hash(torch.tensor([[0.5], [-2.0]])) == expected
    assert tensor_hash(torch.tensor([[0.5], [-2.0]], dtype=torch.bfloat16)) == expected
    assert tensor_hash(torch.tensor([[0.5, -2.0]])) != expected


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor([2**24]), torch.tensor([2**24 + 1])),  # equal in float32
        (torch.tensor([1.0], dtype=torch.float64), torch.tensor([1.0 + 1e-12], dtype=torch.float64)),
        (torch.tensor([1 + 1j]), torch.tensor([1 + 2j])),
        (torch.tensor([True, False]), torch.tensor([False, True])),
        (torch.zeros(0, 3), torch.zeros(3, 0)),
    ],
)
def test_a_tensor_hash_tells_apart(a, b):
    assert tensor_hash(a) != tensor_hash(b) and tensor_hash(a) == tensor_hash(a.clone())


def test_a_tensor_hash_does_not_depend_on_the_layout_in_memory():
    x = torch.randn(2, 3, 4, 4)
    assert tensor_hash(x) == tensor_hash(x.to(memory_format=torch.channels_last))
    assert tensor_hash(x.t() if x.dim() == 2 else x[:, 1]) == tensor_hash(x[:, 1].contiguous())


def test_equal_models_are_equal_in_any_float_format(model):
    assert fingerprint(model) == fingerprint(load(tiny_sd()))
    half = load(tiny_sd().to(torch.bfloat16))
    assert fingerprint(half) == fingerprint(load(tiny_sd().to(torch.bfloat16).to(torch.float32)))
    assert fingerprint(half) != fingerprint(model)


def test_the_same_model_moved_to_half_precision_is_another(model):
    before = fingerprint(model)
    for part in model.components.values():
        part.to(torch.bfloat16)  # the same parameters, none counted as written
    assert fingerprint(model) != before


QUANTISED = {
    "linear": (nn.Linear(16, 16), {nn.Linear}, torch.qint8),
    "float16": (nn.Linear(16, 16), {nn.Linear}, torch.float16),
    "embedding": (
        nn.Embedding(8, 16),
        {nn.Embedding: torch.ao.quantization.float_qparams_weight_only_qconfig},
        torch.quint8,
    ),
    "recurrent": (nn.LSTM(16, 16), {nn.LSTM}, torch.qint8),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("kind", QUANTISED)
def test_weights_that_quantised_layers_keep_packed_count(model, kind):
    """They are neither parameters nor buffers."""
    layer, what, dtype = QUANTISED[kind]

    def packed(layer):
        made = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), what, dtype=dtype)
        model.pipe.text_encoder.extra = made
        return fingerprint(model)

    other = copy.deepcopy(layer)
    with torch.no_grad():
        for p in other.parameters():
            p[0] *= -1
    once = packed(layer)
    assert packed(copy.deepcopy(layer)) == once != packed(other)
    assert packed(layer) == once


class Scaled(torch.Tensor):
    """A tensor that is made of two, as those of torchao and quanto are; torch knows nothing of its inside."""

    @staticmethod
    def __new__(cls, data, scale, zero=0):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=torch.float32)

    def __init__(self, data, scale, zero=0):
        self.data_, self.scale, self.zero = data, scale, zero

    def __tensor_flatten__(self):
        return ["data_", "scale"], {"zero": self.zero, "by": object()}

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].data_, args[0].scale, args[0].zero)
        raise NotImplementedError(func)


def test_weights_that_are_made_of_several_tensors_count(model):
    layer = model.pipe.text_encoder.extra = nn.Linear(4, 4, bias=False)

    def of(data, scale, zero=0):
        whole = Scaled(data, scale, zero)
        layer.weight = nn.Parameter(whole, requires_grad=False)
        return fingerprint(model)

    data, scale = torch.ones(4, 4, dtype=torch.int8), torch.ones(4)
    once = of(data, scale)
    assert len({once, of(2 * data, scale), of(data, 2 * scale), of(data, scale, 1)}) == 4
    assert of(data.clone(), scale.clone()) == once
    layer.weight.scale[0] = 3
    assert fingerprint(model) != once


def test_what_a_layer_keeps_and_nobody_can_read_is_refused(model):
    class Own(nn.Module):
        def get_extra_state(self):
            return object()

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            destination[prefix + "secret"] = self.get_extra_state()

    model.pipe.text_encoder.extra = Own()
    with pytest.raises(StateError, match=r"text_encoder\.extra\.secret holds a object"):
        fingerprint(model)


WRITES = {
    "in place": lambda p: p.add_(1e-3),
    "one value": lambda p: p[3, 5].add_(1e-3),
    "copy": lambda p: p.copy_(p * 1.001),
    "data": lambda p: p.data.mul_(1.001),
    "other data": lambda p: setattr(p, "data", p.data * 1.001),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_seen_and_its_undoing_too(model, write):
    before, p = fingerprint(model), weight(model)
    was = p.detach().clone()
    with torch.no_grad():
        write(p)
    assert fingerprint(model) != before
    with torch.no_grad():
        p.copy_(was)
    assert fingerprint(model) == before


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_of_training_is_seen(model, optimizer, fused):
    """Fused optimizers write without torch's counting it."""
    before, p = fingerprint(model), weight(model)
    p.grad = torch.ones_like(p)
    optimizer([p], lr=1e-3, fused=fused).step()
    p.grad = None
    assert fingerprint(model) != before


def test_values_all_over_a_tensor_are_looked_at(model):
    """What writes without being counted writes most values."""
    flat = weight(model).data.view(-1)
    seen = {fingerprint(model)}
    for i in range(SPOTS):
        flat[i * (len(flat) // SPOTS)] += 1
        seen.add(fingerprint(model))
    assert SPOTS >= 8 and len(seen) == 1 + SPOTS


def test_another_tensor_in_the_place_of_one_that_is_gone_is_another(model, monkeypatch):
    """Python may give it the same id; it is told by the old one being gone."""
    monkeypatch.setattr(room, "_state", lambda t: (0, 0, t.dtype, t.shape))
    before = fingerprint(model)
    layer = model.module("unet/mid.attn.0.0/cross_attn.v_proj")
    values = layer.weight.detach().clone()
    values[3, 5] += 1  # beside the values that are looked at
    layer.weight = nn.Parameter(values)
    gc.collect()
    assert fingerprint(model) != before


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_any_counted_write_to_any_tensor_is_seen(which, place):
    model = MODEL
    tensors = [t for m in model.components.values() for t in m.parameters()]
    p = tensors[which % len(tensors)]
    before = fingerprint(model)
    with torch.no_grad():
        was = p.view(-1)[place % p.numel()].clone()
        p.view(-1)[place % p.numel()] = was + 1
        assert fingerprint(model) != before
        p.view(-1)[place % p.numel()] = was
    assert fingerprint(model) == before


MODEL = load(tiny_sd())


def test_buffers_count(model):
    before = fingerprint(model)
    model.denoiser.register_buffer("table", torch.arange(3))
    first = fingerprint(model)
    model.denoiser.table += 1
    assert len({before, first, fingerprint(model)}) == 3


def test_swapped_weights_of_equal_shape_are_another_model(model):
    before, attn = fingerprint(model), model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2
    attn.to_k, attn.to_v = attn.to_v, attn.to_k
    assert fingerprint(model) != before


def test_an_applied_edit_is_another_model(model):
    before = fingerprint(model)
    edit = Edit.of(model, {WEIGHT: torch.full_like(weight(model), 0.5)})
    with edit.applied(model):
        edited = fingerprint(model)
    assert fingerprint(model) == before != edited
    other = load(tiny_sd())
    edit.apply(other)
    assert fingerprint(other) == edited


def lora(model, scale=2.0):
    torch.manual_seed(3)
    config = LoraConfig(r=2, lora_alpha=2 * scale, target_modules=["to_q"], init_lora_weights=False)
    model.pipe.unet.add_adapter(config)
    return load(model.pipe)


@pytest.mark.filterwarnings("ignore")
def test_a_lora_its_scale_and_whether_it_is_on_count(model):
    before = fingerprint(model)
    with_lora = lora(model)
    seen = [before, fingerprint(with_lora)]
    with_lora.pipe.unet.disable_adapters()
    seen.append(fingerprint(with_lora))
    with_lora.pipe.unet.enable_adapters()
    assert fingerprint(with_lora) == seen[1]
    for module in with_lora.denoiser.modules():
        if "scaling" in vars(module):
            module.set_scale("default", 0.5)
    seen.append(fingerprint(with_lora))
    assert len(set(seen)) == 4
    assert fingerprint(lora(load(tiny_sd()))) == seen[1]


def test_a_parametrised_weight_counts(model):
    class Plus(nn.Module):
        def __init__(self):
            super().__init__()
            self.delta = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + self.delta

    before, plus = fingerprint(model), Plus()
    layer = model.denoiser.mid_block.attentions[0].proj_in
    nn.utils.parametrize.register_parametrization(layer, "weight", plus)
    first = fingerprint(model)
    plus.delta.data.fill_(1.0)
    assert len({before, first, fingerprint(model)}) == 3


def test_only_what_was_written_is_hashed_again(model, monkeypatch):
    hashed = []
    monkeypatch.setattr(room, "tensor_hash", lambda t: (hashed.append(t), tensor_hash(t))[1])
    fingerprint(model)
    every = len(hashed)
    fingerprint(model)
    assert len(hashed) == every
    with torch.no_grad():
        p = weight(model)
        p[3, 5] += 1  # beside the values that are looked at
    fingerprint(model)
    assert len(hashed) == every + 1 and hashed[-1] is p


def test_moving_to_and_fro_does_not_hash_again(model, monkeypatch):
    """As offloading does at each run: other memory, the same values."""
    before = fingerprint(model)
    for p in model.denoiser.parameters():
        p.data = p.data.clone()
    monkeypatch.setattr(room, "tensor_hash", None)
    assert fingerprint(model) == before


def test_weights_that_are_not_there_are_refused(model):
    model.denoiser.to("meta")
    with pytest.raises(StateError, match=r"unet\..* is not in memory.*enable_model_cpu_offload"):
        fingerprint(model)


def test_the_embedded_model_has_the_same_weights_however_it_is_opened(emoji):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder("emoji"))
    assert fingerprint(load(pipe)) == fingerprint(emoji)
