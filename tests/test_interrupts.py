"""Ctrl-C at any moment leaves nothing behind: no hook, no edit, no call, and the next picture is right."""

from __future__ import annotations

import gc
from random import Random

import diffusers
import pytest
import torch

from denoscope.analysis.attribution.attention_maps import word_maps
from denoscope.editing.edit import Edit
from denoscope.models.load import load
from denoscope.models.places.attention import clear_taps
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.attach import attached
from denoscope.probes.intervene import scale, zero
from denoscope.probes.observe import Observer
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.interrupting import interrupt, moments

pytestmark = pytest.mark.stress  # each is long; make stress

ATTENTION = "unet/mid.attn.0.0/cross_attn"
READS = "text_encoder/layer.0/self_attn"
RUN = {"seeds": [0], "steps": 1}
CHANGES = [zero(f"{ATTENTION}.probs"), scale(f"{ATTENTION}.out", 2.0), zero(f"{READS}.z")]
WEIGHTS = [f"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_{p}.weight" for p in "qkv"]


def picture(pipe):
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=1, generator=generator, output_type="latent").images


def watched(model):
    """A user's own call, with an IP-Adapter's attention left alone."""
    with attached(model.pipe, *CHANGES, trace=f"{ATTENTION}.*"):
        picture(model.pipe)


def own_loop(model):
    pipe = model.pipe
    embeds = torch.cat(pipe.encode_prompt("a cat", "cpu", 1, True)[::-1])
    with attached(pipe, *CHANGES[:2], rows={"uncond": slice(0, 1), "cond": slice(1, 2)}) as run:
        pipe.scheduler.set_timesteps(1)
        for t in pipe.scheduler.timesteps:
            pipe.unet(torch.zeros(2, 4, 8, 8), t, encoder_hidden_states=embeds)
    return run


def observed(model):
    def fn(parts, _):
        model.module(f"{ATTENTION}.out")(parts["out"])

    trace(model, ["a cat"], interventions=[Observer({"out": f"{ATTENTION}.out"}, fn)], **RUN)


def edited(model):
    deltas = {name: torch.ones_like(model.parameter(name)) for name in WEIGHTS}
    with Edit.of(model, deltas).applied(model):
        pass


def swept(model):
    runs = [SweepRun("a cat", 0), SweepRun("a cat", 0, (CHANGES[0],))]
    sweep(model, runs, steps=1)


SITUATIONS = {
    "trace": lambda m: trace(
        m, ["a cat"], sites=f"{ATTENTION}.*", interventions=CHANGES, guidance=4.0, **RUN
    ),
    "word_maps": lambda m: word_maps(m, ["a cat"], seeds=[0], steps=1),
    "observer": observed,
    "sweep": swept,
    "edit": edited,
    "attached": watched,
    "own loop": own_loop,
}


def leaves_nothing(name, n, watch, leftovers):
    model = load(tiny_sd())

    def run():
        with torch.no_grad():
            SITUATIONS[name](model)

    plain = picture(model.pipe)
    ours = trace(model, ["a cat"], **RUN).latents
    run()
    before, whole = watch(model), moments(run)
    for moment in Random(0).sample(range(whole), n):
        interrupt(run, moment)
        torch.set_grad_enabled(True)  # torch's own no_grad may be left open
        clear_taps()  # torch may put one back, which does nothing there; the next hooks clear them
        found = [*before.changes(thorough=False), *leftovers()]
        if found:  # a block whose end is interrupted before it begins ends when it is forgotten
            gc.collect()
            clear_taps()
            found = [*before.changes(), *leftovers()]
        assert not found, f"left behind after moment {moment} of {whole}: {found}"
    assert not before.changes()
    assert type(model.pipe) is diffusers.StableDiffusionPipeline
    assert torch.equal(picture(model.pipe), plain)
    assert torch.equal(trace(model, ["a cat"], **RUN).latents, ours)


@pytest.mark.parametrize("name", SITUATIONS)
def test_ctrl_c_at_ten_moments_leaves_nothing(name, watch, leftovers):
    leaves_nothing(name, 10, watch, leftovers)


@pytest.mark.stress
@pytest.mark.parametrize("name", SITUATIONS)
def test_ctrl_c_at_two_hundred_moments_leaves_nothing(name, watch, leftovers):
    leaves_nothing(name, 200, watch, leftovers)
