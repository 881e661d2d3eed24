"""An edit acts on the very weights it was made for, in whatever number format they are, and on no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from denoscope import Edit
from denoscope.editing.base import BASE, base_of, same_base, same_weight
from denoscope.models.load import load
from denoscope.models.store.fingerprint import tensor_hash
from denoscope.models.synthetic.tiny import tiny_sd

NAME = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
FORMATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def opened(dtype=torch.float32, seed=0):
    pipe = tiny_sd(seed=seed)
    pipe.text_encoder.to(dtype)
    return load(pipe)


def change(model):
    weight = model.parameter(NAME)
    return Edit.of(model, {NAME: torch.linspace(0.5, 1, weight.numel()).reshape(weight.shape)})


@pytest.mark.parametrize("made", FORMATS)
@pytest.mark.parametrize("used", FORMATS)
def test_number_formats_of_one_weight_are_one_weight(made, used):
    """But for the two halves, of which neither is a rounding of the other."""
    edit, model = change(opened(made)), opened(used)
    before = model.parameter(NAME).detach().clone()
    if {made, used} == {torch.float16, torch.bfloat16}:
        with pytest.raises(ValueError, match="this edit is for other weights"):
            edit.apply(model)
        return
    with edit.applied(model):
        expected = (before.double() + edit.deltas[NAME].double()).to(used)
        assert torch.equal(model.parameter(NAME), expected)
    assert torch.equal(model.parameter(NAME), before)


@pytest.mark.parametrize("dtype", FORMATS)
def test_other_weights_are_others_in_every_format(dtype):
    with pytest.raises(ValueError, match="this edit is for other weights"):
        change(opened()).apply(opened(dtype, seed=1))


def test_edits_of_two_formats_add_up_and_the_sum_is_for_all_of_them():
    wide, half = change(opened()), change(opened(torch.float16))
    assert wide.base != half.base and (wide + half).base == (half + wide).base == wide.base
    for dtype in FORMATS:
        with (wide + half).applied(opened(dtype)):
            pass
    with pytest.raises(ValueError, match="different weights"):
        half + change(opened(torch.bfloat16))


def test_a_weight_in_double_precision_is_the_one_in_single_where_it_holds_no_more():
    x = torch.randn(3, 4)
    assert tensor_hash(x.double()) == tensor_hash(x)
    assert tensor_hash(x.double() + 1e-12) != tensor_hash(x)


def test_what_an_edit_is_for_is_kept_in_its_file(tmp_path: Path):
    pipe = tiny_sd()
    torch.manual_seed(0)
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False))
    beside = change(load(pipe))
    for i, edit in enumerate((change(opened()), change(opened(torch.float16)), beside)):
        edit.save(tmp_path / f"{i}.safetensors")
        assert Edit.load(tmp_path / f"{i}.safetensors").base == edit.base
        assert BASE.fullmatch(edit.base[NAME])
    plain = base_of(opened(), [NAME])[NAME]
    assert same_weight(beside.base[NAME], plain) and not same_base(beside.base[NAME], plain)
    with pytest.raises(ValueError, match="made with other adapters"):
        beside.apply(opened())
