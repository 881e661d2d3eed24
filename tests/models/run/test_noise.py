"""Seeds are whole numbers of any kind; texts need their encoder, Prompts do not."""

import numpy as np
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.trace import trace


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor, int])
def test_whole_numbers_of_any_kind_are_seeds(tiny, kind):
    assert torch.equal(tiny.noise([kind(7)]), tiny.noise([7]))
    run = trace(tiny, ["a cat"], seeds=[kind(7)], steps=1)
    assert torch.equal(run.latents, trace(tiny, ["a cat"], seeds=[7], steps=1).latents)


@pytest.mark.parametrize("seed", [0.5, "7", None, [7]])
def test_what_is_no_whole_number_is_no_seed(tiny, seed):
    with pytest.raises(TypeError, match=r"seeds\[0\] is .*; it is a whole number"):
        trace(tiny, ["a cat"], seeds=[seed], steps=1)


def test_a_seed_beyond_64_bits_is_refused(tiny):
    with pytest.raises(ValueError, match="is beyond 64 bits"):
        tiny.noise([2**70])


def test_without_a_text_encoder_prompts_are_read_and_texts_refused():
    pipe = tiny_sd()
    cat, nothing = load(pipe).encode(["a cat", ""])
    plain = trace(load(pipe), ["a cat"], seeds=[0], steps=1, guidance=4.0)
    parts = {**pipe.components, "text_encoder": None, "tokenizer": None}
    bare = load(type(pipe)(**parts, requires_safety_checker=False))
    run = trace(bare, [cat], seeds=[0], steps=1, guidance=4.0, negative=[nothing])
    assert torch.equal(run.latents, plain.latents)
    for prompts, negative in ((["a cat"], [nothing]), ([cat], "")):
        with pytest.raises(RuntimeError, match=r"has no text_encoder now.*negative=\[Prompt"):
            trace(bare, prompts, seeds=[0], steps=1, guidance=4.0, negative=negative)
