"""Weights under an edit: what was done to them meanwhile is told, and never overwritten."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig
from torch import nn

from denoscope.editing.edit import Edit
from denoscope.editing.methods.quickfix import quickfix
from denoscope.models.errors import StateError
from denoscope.models.load import load, opened
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.trace import trace

BLOCK = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
VALUE, KEY = f"{BLOCK}.to_v.weight", f"{BLOCK}.to_k.weight"
TOLD = r"was replaced or written to while .*left as it is.*load those weights again"


def edit_of(model, *names):
    return Edit.of(model, {n: torch.full_like(model.parameter(n), 0.5) for n in names})


def with_lora(pipe, part="text_encoder", modules=("q_proj", "k_proj", "v_proj"), name="a"):
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=list(modules), init_lora_weights=False)
    getattr(pipe, part).add_adapter(config, adapter_name=name)
    return pipe


def written(unet):
    with torch.no_grad():
        unet.get_parameter(VALUE.partition(".")[2]).mul_(1.5)


def loaded(unet):
    unet.load_state_dict(tiny_sd(seed=5).unet.state_dict())


def assigned(unet):
    unet.load_state_dict({n: t.clone() for n, t in unet.state_dict().items()}, assign=True)


def replaced(unet):
    module = unet.get_submodule(BLOCK.partition(".")[2]).to_v
    module.weight = nn.Parameter(module.weight.detach().clone())


@pytest.mark.parametrize("how", [written, loaded, assigned, replaced])
def test_what_was_written_or_replaced_under_an_edit_stays_and_is_told(how):
    model = load(tiny_sd())
    plain = {n: model.parameter(n).detach().clone() for n in (VALUE, KEY)}
    with pytest.raises(StateError, match=TOLD), edit_of(model, VALUE, KEY).applied(model):
        how(model.pipe.unet)
        then = {n: model.parameter(n).detach().clone() for n in plain}
    assert torch.equal(model.parameter(VALUE), then[VALUE])
    kept = then[KEY] if how in (loaded, assigned) else plain[KEY]
    assert torch.equal(model.parameter(KEY), kept)
    with edit_of(model, VALUE).applied(model):  # as new
        pass
    assert torch.equal(model.parameter(VALUE), then[VALUE])


def test_written_under_an_edit_that_was_applied_for_good():
    model = load(tiny_sd())
    edit = edit_of(model, VALUE)
    edit.apply(model)
    written(model.pipe.unet)
    with pytest.raises(StateError, match=TOLD):
        edit.revert(model)
    with pytest.raises(ValueError, match="is not applied"):
        edit.revert(model)


def test_a_component_that_was_exchanged_under_an_edit_is_told_and_the_old_one_is_clean():
    model = load(tiny_sd())
    old = model.pipe.unet
    plain = copy.deepcopy(old.state_dict())
    with pytest.raises(StateError, match=TOLD), edit_of(model, VALUE).applied(model):
        model.pipe.unet = tiny_sd(seed=3).unet
    assert torch.equal(model.parameter(VALUE), tiny_sd(seed=3).unet.state_dict()[VALUE.partition(".")[2]])
    model.pipe.unet = old
    assert all(torch.equal(t, plain[n]) for n, t in old.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_another_number_format_meanwhile_is_no_other_weight(dtype):
    model = load(tiny_sd())
    plain = model.parameter(VALUE).detach().clone()
    with edit_of(model, VALUE).applied(model):
        model.pipe.unet.to(dtype)
    assert torch.equal(model.parameter(VALUE), plain.to(dtype))


# LoRAs ----------------------------------------------------------------------------------------------------


def test_a_lora_fused_under_an_edit_is_told():
    pipe = tiny_sd()
    edit = quickfix(load(pipe), {"cat": "dog"})
    edit.apply(pipe)
    with_lora(pipe, modules=["out_proj"])
    pipe.fuse_lora(components=["text_encoder"])
    with pytest.raises(StateError, match=TOLD):
        edit.revert(pipe)


def test_a_lora_unfused_under_an_edit_is_told():
    pipe = with_lora(tiny_sd(), modules=["out_proj"])
    pipe.fuse_lora(components=["text_encoder"])
    model = load(pipe)
    name = next(
        n for n in model.weights("text_encoder/layer.0/self_attn.out") if n.endswith("base_layer.weight")
    )
    with pytest.raises(StateError, match=TOLD), edit_of(model, name).applied(model):
        pipe.unfuse_lora(components=["text_encoder"])


def test_a_lora_added_under_an_edit_stays_and_the_edit_comes_off():
    pipe = tiny_sd()
    model = load(pipe)
    lora = trace(load(with_lora(tiny_sd(), "unet", ["to_v"])), ["a cat"], seeds=[0], steps=2).latents
    with edit_of(model, VALUE).applied(model):
        with_lora(pipe, "unet", ["to_v"])
        assert not torch.equal(trace(model, ["a cat"], seeds=[0], steps=2).latents, lora)
    assert torch.equal(trace(model, ["a cat"], seeds=[0], steps=2).latents, lora)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_an_edit_is_for_the_adapters_beside_it_too(part):
    names = ["q_proj", "k_proj", "v_proj"] if part == "text_encoder" else ["to_q"]
    there, plain = load(with_lora(tiny_sd(), part, names)), load(tiny_sd())
    weight = "text_encoder.encoder.layers.0.self_attn.out_proj.weight" if part == "text_encoder" else VALUE
    beside, without = edit_of(there, weight), edit_of(plain, weight)
    told = rf"made with other adapters \(LoRAs\) active in {part} .*set_adapters"
    with pytest.raises(ValueError, match=told):
        beside.apply(plain)
    with pytest.raises(ValueError, match=told):
        without.apply(there)
    with pytest.raises(ValueError, match="different weights"):
        beside + without
    equal = load(with_lora(tiny_sd(), part, names, name="another name"))
    for model, edit in ((there, beside), (plain, without), (equal, beside)):
        with edit.applied(model):
            pass
    there.pipe.disable_lora()
    with without.applied(there):
        pass


def test_a_lora_in_another_component_does_not_matter():
    model = load(tiny_sd())
    edit = edit_of(model, VALUE)
    with_lora(model.pipe)
    with edit.applied(model):
        pass


# several names, and weights that are not there ------------------------------------------------------------


def test_one_weight_under_two_names_is_refused():
    pipe = with_lora(tiny_sd(), "unet", ["to_v"])
    model = opened(pipe)
    names = [VALUE, VALUE.replace("to_v", "to_v.base_layer")]
    with pytest.raises(ValueError, match=r"to_v.weight and .*base_layer.weight are one and the same weight"):
        edit_of(model, *names)
    tied = load(tiny_sd())
    module = tied.pipe.unet.get_submodule(BLOCK.partition(".")[2])
    module.to_k.weight = module.to_v.weight
    with pytest.raises(ValueError, match="one and the same weight"):
        edit_of(tied, VALUE, KEY)
    both = edit_of(load(tiny_sd()), VALUE, KEY)
    with pytest.raises(ValueError, match="one and the same weight"):
        both.apply(tied)


def test_weights_on_disk_are_refused_by_name(tmp_path):
    pipe, cpu = tiny_sd(), torch.device("cpu")
    edit = edit_of(opened(pipe), VALUE)
    options = {"onload_device": cpu, "offload_device": cpu, "offload_type": "leaf_level"}
    pipe.unet.enable_group_offload(**options, offload_to_disk_path=str(tmp_path))
    for act in (lambda: load(pipe), lambda: edit_of(opened(pipe), VALUE), lambda: edit.apply(pipe)):
        with pytest.raises(ValueError, match="weights of unet lie on disk.*offload_to_disk_path"):
            act()


def test_weights_that_are_offloaded_in_memory_take_an_edit():
    pipe, cpu = tiny_sd(), torch.device("cpu")
    plain, changed = trace(load(tiny_sd()), ["a cat"], seeds=[0], steps=1).latents, None
    pipe.unet.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    model = load(pipe)
    with edit_of(model, VALUE).applied(model):
        changed = trace(model, ["a cat"], seeds=[0], steps=1).latents
    assert not torch.equal(changed, plain)
    assert torch.equal(trace(model, ["a cat"], seeds=[0], steps=1).latents, plain)


def test_weights_that_went_away_under_an_edit_are_told():
    model = load(tiny_sd())
    with pytest.raises(StateError, match=TOLD), edit_of(model, VALUE).applied(model):
        model.pipe.unet.to("meta")  # as enable_sequential_cpu_offload leaves it
