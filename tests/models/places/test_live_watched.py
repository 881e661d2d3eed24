"""What changes in a model while it is watched is followed, or refused where it moves what is watched."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig

from denoscope.models.errors import StateError
from denoscope.models.load import load
from denoscope.models.places.account import AccountError
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.attach import attached
from denoscope.probes.intervene import intervening, scale
from denoscope.probes.trace import trace

VALUE = "unet/mid.attn.0.0/cross_attn.v_proj"
RUN = {"seeds": [0], "steps": 2}


def lora(pipe):
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))


def fused(pipe):
    pipe.unet.fuse_qkv_projections()


def replaced(pipe):
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v = torch.nn.Linear(16, 16, bias=False)


@pytest.mark.parametrize("change", [lora, fused, replaced])
def test_a_module_that_is_wrapped_or_replaced_while_watched_is_refused(change):
    pipe = tiny_sd()
    with (
        pytest.raises(StateError, match="v_proj lies elsewhere since it is watched"),
        attached(pipe, scale(VALUE, 2.0)),
    ):
        change(pipe)
        pipe("a cat", num_inference_steps=1, output_type="latent")
    model = load(tiny_sd())
    with (
        pytest.raises(StateError, match="v_proj lies elsewhere"),
        torch.no_grad(),
        intervening(model, scale(VALUE, 2.0)),
    ):
        change(model.pipe)
        list(model.sample(["a cat"], **RUN))
    if change is not fused:  # from here on it is followed
        assert not torch.equal(
            trace(model, ["a cat"], interventions=[scale(VALUE, 2.0)], **RUN).latents,
            trace(model, ["a cat"], **RUN).latents,
        )


def test_changes_elsewhere_are_followed_while_something_is_watched():
    model = load(tiny_sd())
    with torch.no_grad(), intervening(model, scale(VALUE, 2.0)):
        first = list(model.sample(["a cat"], **RUN))[-1].latents
        model.pipe.text_encoder = tiny_sd(seed=3).text_encoder
        assert not torch.equal(list(model.sample(["a cat"], **RUN))[-1].latents, first)


def test_a_block_that_rests_at_some_steps_is_told_and_not_read_from_fresh_memory():
    model = load(tiny_sd())
    block = model.pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    forward, calls = block.forward, []

    def sometimes(hidden_states, **more):
        calls.append(1)
        return hidden_states if len(calls) == 2 else forward(hidden_states, **more)

    block.forward = sometimes
    with pytest.raises(AccountError, match="was not reached at step 1"):
        trace(model, ["a cat"], sites=VALUE, **RUN)
