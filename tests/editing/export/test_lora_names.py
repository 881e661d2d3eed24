"""Names of kohya's format at full size: diffusers' converter turns that of every layer back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft
from torch import nn

from denoscope.editing.export.lora_names import namer
from denoscope.models.load import opened
from denoscope.models.synthetic.sizes import full_size
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_dit


def layers(model: Any, part: str) -> list[str]:
    """Every layer that a LoRA can hold, by its full name."""
    named = model.components[part].named_modules()
    return [
        f"{part}.{name}"
        for name, module in named
        if isinstance(module, nn.Linear | nn.Conv2d) and "text_projection" not in name
    ]


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("sd-1.5", "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0"),
        ("sd-2.1", "lora_te_text_model_encoder_layers_22_mlp_fc2"),
        ("sdxl", "lora_unet_output_blocks_0_1_transformer_blocks_9_ff_net_0_proj"),
        ("sdxl", "lora_te2_text_model_encoder_layers_31_self_attn_q_proj"),
    ],
)
def test_every_name_is_turned_back(name: str, one: str) -> None:
    model: Any = full_size(name)
    names, state, wanted = namer(model, "kohya"), dict[str, torch.Tensor](), set[str]()
    for part in names.parts:
        for layer in layers(model, part):
            wanted.add(layer)
            state |= names.tensors(layer, torch.zeros(2, 1), torch.zeros(1, 2))
    assert len(state) == 3 * len(wanted) and f"{one}.alpha" in state
    back, alphas = model.pipe.lora_state_dict(state, unet_config=model.pipe.unet.config)[:2]
    assert set(alphas.values()) == {2.0} and len(alphas) == len(wanted)
    unet = convert_unet_state_dict_to_peft({n: t for n, t in back.items() if n.startswith("unet.")})
    text = convert_state_dict_to_peft(
        convert_state_dict_to_diffusers({n: back[n] for n in back if n[0] == "t"})
    )
    found = {n.removesuffix(".lora_A.weight") for n in (*unet, *text) if n.endswith(".lora_A.weight")}
    assert {n.replace("text_model.", "") for n in found} == {n.replace("text_model.", "") for n in wanted}
    assert all(".text_model." in n for n in found if n.startswith("text_encoder"))


def test_formats_and_families_without_names_are_told() -> None:
    with pytest.raises(ValueError, match="format is 'peft'; give 'diffusers' or 'kohya'"):
        namer(opened(tiny_sd()), "peft")
    with pytest.raises(ValueError, match="DiTPipeline has no load_lora_weights; export the pipeline instead"):
        namer(opened(tiny_dit()), "diffusers")
