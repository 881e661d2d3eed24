"""Layers that read text alone: in every family, found by looking, with the inputs that a run gives them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

import denoscope
from denoscope.models.places.hooks import before_calls
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.text_layers import POOLED, TOKENS, text_inputs, text_layers
from tests.models.families.test_families import opened

READS: Mapping[str, tuple[int, set[str]]] = {
    "sd": (8, {TOKENS}),
    "sdxl": (17, {TOKENS, POOLED}),
    "pixart-alpha": (6, {TOKENS, "into transformer.transformer_blocks.0.attn2.to_k.weight"}),
    "sana": (6, {TOKENS, "into transformer.transformer_blocks.0.attn2.to_k.weight"}),
    "sd3": (2, {TOKENS, POOLED}),
    "flux-dev": (2, {TOKENS, POOLED}),
    "ldm": (8, {TOKENS}),
}
"""How many layers there are, and some of what they read."""


@pytest.mark.parametrize("name", READS)
def test_they_are_found_and_given_what_is_said_of_them(name: str) -> None:
    """In a guided run at the usual size, at every step: the rows that closed forms take for keys."""
    model, text = opened(name), "a red dog"
    layers = text_layers(model)
    number, spaces = READS[name]
    assert len(layers) == number and spaces <= {layer.space for layer in layers}
    seen: dict[str, list[Tensor]] = {layer.weight: [] for layer in layers}

    def look(weight: str, args: Any, _: Any) -> None:
        seen[weight].append(args[0].detach().clone())

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(before_calls(layer.module, partial(look, layer.weight)))
        denoscope.trace(model, [text], seeds=[3], steps=2, guidance=4.0)
    for layer in layers:
        states = torch.cat([part.values for part in text_inputs(model, layer, [text])[text]])
        calls = seen[layer.weight]
        assert len(calls) >= 2
        for call in calls:  # one of the branches reads the text
            rows = [row[..., : layer.columns].reshape(-1, layer.columns) for row in call]
            assert any(holds(row, states) for row in rows), layer.weight


def holds(row: Tensor, states: Tensor) -> bool:
    """Whether every state stands in a row, in order; masked padding may stand between."""
    left = iter(row)
    return all(any(torch.allclose(x, state, atol=1e-6) for x in left) for state in states)


def test_stable_diffusion_3_reads_each_word_twice() -> None:
    model = opened("sd3")
    layer = next(x for x in text_layers(model) if x.space == TOKENS)
    parts = text_inputs(model, layer, ["a red dog"])["a red dog"]
    assert [part.words.find("dog") for part in parts] == [[3], [3]]
    prompt = model.encode(["a red dog"])[0]
    torch.testing.assert_close(torch.cat([part.values for part in parts]), prompt.embeds.detach().cpu())


def test_masked_padding_is_left_out() -> None:
    model = opened("pixart-alpha")
    layer = next(x for x in text_layers(model) if x.space == TOKENS)
    (part,) = text_inputs(model, layer, ["a red dog"])["a red dog"]
    prompt = model.encode(["a red dog"])[0]
    assert prompt.mask is not None
    assert len(part.values) == int(prompt.mask.sum()) < len(prompt.embeds)
    assert part.words.find("dog") == prompt.find("dog")


def test_models_without_text_and_with_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="DDPMPipeline reads no text"):
        text_layers(opened("ddpm"))
    pipe = tiny_sd()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"]))
    with pytest.raises(ValueError, match=r"to_v carries a LoRA beside its weight; merge it first"):
        text_layers(denoscope.load(pipe))
