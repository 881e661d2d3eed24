"""The mode of the user's modules is theirs: our calls are in evaluation mode, and put back what was."""

import pytest
import torch
from torch import nn

from denoscope.models.load import load
from denoscope.models.places.mode import evaluating
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.attach import attached
from denoscope.probes.trace import trace


def flags(pipe):
    parts = {n: m for n, m in pipe.components.items() if isinstance(m, nn.Module)}
    return {(n, name): m.training for n, part in parts.items() for name, m in part.named_modules()}


def training():
    """A pipeline that is being trained, with dropout in every network."""
    pipe = tiny_sd()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.train()
    pipe.unet.conv_out = nn.Sequential(pipe.unet.conv_out, nn.Dropout(0.5))
    pipe.vae.decoder.conv_out = nn.Sequential(pipe.vae.decoder.conv_out, nn.Dropout(0.5))
    pipe.text_encoder.get_input_embeddings().register_forward_hook(
        lambda module, _, x: nn.functional.dropout(x, 0.5, module.training)
    )
    return pipe


def test_opening_and_running_leave_the_mode_and_the_runs_have_no_dropout():
    pipe = training()
    pipe.unet.mid_block.eval()
    before = flags(pipe)
    model = load(pipe)
    runs = [trace(model, ["a cat"], seeds=[0], steps=2) for _ in range(2)]
    model.start_at(runs[0].images, 1, [0], steps=2)
    assert flags(pipe) == before and True in before.values() and False in before.values()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval()
    plain = trace(load(pipe), ["a cat"], seeds=[0], steps=2)
    assert torch.equal(runs[0].latents, plain.latents) and torch.equal(runs[1].images, plain.images)


def test_a_run_that_fails_puts_the_mode_back():
    pipe = training()
    before = flags(pipe)

    def fail(*_):
        raise KeyboardInterrupt

    handle = pipe.unet.conv_in.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        trace(load(pipe), ["a cat"], seeds=[0], steps=1)
    handle.remove()
    assert flags(pipe) == before


def test_a_users_own_call_is_in_the_users_own_mode():
    pipe, seen = training(), []
    pipe.unet.conv_in.register_forward_hook(lambda module, *_: seen.append(module.training))
    with attached(pipe, trace="unet/in/conv.out"):
        pipe("a cat", num_inference_steps=1, output_type="latent")
    assert seen == [True]


def test_only_what_was_training_is_put_back():
    one, other = nn.Linear(1, 1), nn.Linear(1, 1).eval()
    with evaluating([one, None, other]):
        assert not one.training and not other.training
        one.weight.requires_grad_(False)
    assert one.training and not other.training
