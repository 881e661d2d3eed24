"""Where sites lie is followed when the networks change, and asked cheaply."""

import gc

import pytest
from torch import nn

from denoscope.models.load import load
from denoscope.models.places import live
from denoscope.models.run.context import Call
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import intervening, scale

OUT = "unet/mid.attn.0.0/cross_attn.out"


@pytest.fixture
def model():
    return load(tiny_sd())


def copied(layer):
    new = nn.Linear(layer.in_features, layer.out_features)
    new.load_state_dict(layer.state_dict())
    return new


def attention_of(model):
    return model.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2


def test_a_layer_replaced_anywhere_is_followed(model):
    before = model.module(OUT)
    attention = attention_of(model)
    attention.to_out[0] = copied(before)
    assert model.module(OUT) is attention.to_out[0] is not before
    attention.to_out._modules["0"] = copied(before)  # unseen by any setter
    assert model.module(OUT) is attention.to_out[0]


def test_a_layer_at_the_address_of_one_that_is_gone_is_followed(model):
    attention = attention_of(model)
    for _ in range(4):  # without the old one held, Python hands out its address again
        attention.to_out[0] = copied(attention.to_out[0])
        gc.collect()
        assert model.module(OUT) is attention.to_out[0]


def test_a_layer_under_another_name_is_followed(model):
    out = attention_of(model).to_out
    kept = dict(out._modules)
    out._modules.clear()
    out._modules.update({f"old_{name}": module for name, module in kept.items()})
    with pytest.raises(ValueError, match="has no attribute `0`"):  # where the path says, nothing lies
        model.place(OUT)


def test_a_component_replaced_is_followed_and_its_mode_left(model):
    other = tiny_sd(seed=5).unet.train()
    model.pipe.unet = other
    assert model.module("unet/in/conv.out") is other.conv_in
    assert other.training


def test_projections_fused_and_taken_apart_are_followed(model):
    site = "unet/mid.attn.0.0/cross_attn.k_proj"
    model.place(site)
    model.pipe.unet.fuse_qkv_projections()
    with pytest.raises(LookupError):
        model.place(site)
    model.pipe.unet.unfuse_qkv_projections()
    assert model.place(site)


def counting(monkeypatch, name):
    calls, real = [], getattr(live, name)
    monkeypatch.setattr(live, name, lambda *args: calls.append(1) or real(*args))
    return calls


def test_a_lookup_asks_attention_alone_whether_it_is_fused(model, monkeypatch):
    asked = counting(monkeypatch, "is_fused")
    model.place(OUT)
    every = [m for part in model.components.values() for m in part.modules()]
    assert len(asked) == sum(isinstance(m, live.ATTENTION) for m in every) < len(every) / 10


def test_the_structure_is_read_once_for_many_sites(model, monkeypatch):
    sites = model.sites("unet/**")
    walked = counting(monkeypatch, "structure_of")
    with intervening(model, *(scale(s, 1.0) for s in sites)):
        assert len(walked) == 1
    assert len(model.places_of(sites)) == len(sites)
    with pytest.raises(LookupError, match="no site 'unet/nothing/at.all'"):
        model.places_of([*sites, "unet/nothing/at.all"])


def test_a_call_keeps_the_places_that_it_began_with(model):
    before = model.module(OUT)
    with model.calling(Call("unet", {"cond": slice(0, 1)})):
        attention_of(model).to_out[0] = copied(before)
        assert model.module(OUT) is before
    assert model.module(OUT) is not before
