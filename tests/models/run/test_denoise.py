"""One call of the network, whole by itself: many levels in a batch, gradients of steps computed again."""

from __future__ import annotations

import copy
from contextlib import ExitStack, nullcontext

import diffusers
import pytest
import torch

from denoscope import Edit
from denoscope.guidance import Guidance, GuidanceBranch
from denoscope.models.errors import StateError
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, When, intervening, scale, zero
from tests.models.families.test_families import FAMILIES, opened

MID = "unet/mid.attn.0.0/resid.post"
PROMPTS = ["a cat", "a red dog"]


def levels_of(model):
    return [model.step_at(t=t) for t in (20, 150, 300, 450, 600, 750, 900, 980)]


@pytest.mark.parametrize("name", FAMILIES)
def test_eight_levels_in_one_batch_equal_eight_calls(name):
    model, texts = opened(name), FAMILIES[name].texts
    steps, prompts = levels_of(model), [texts[i % 2] for i in range(8)]
    x = model.noise(range(8))
    with torch.no_grad():
        together = model.denoise(x, steps, prompts)
        alone = [model.denoise(x[[i]], steps[i], [prompts[i]]) for i in range(8)]
        wrong = model.denoise(x, steps[0], prompts)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together, wrong, rtol=1e-2, atol=1e-3)


def test_guided_levels_in_one_batch(tiny):
    steps, x = levels_of(tiny), tiny.noise(range(8))
    prompts, negative = ["a cat"] * 8, [f"a {w}" for w in ("dog", "fish") * 4]
    with torch.no_grad():
        together = tiny.denoise(x, steps, prompts, guidance=4.0, negative=negative)
        cond = tiny.denoise(x, steps, prompts)
        uncond = tiny.denoise(x, steps, negative)
    torch.testing.assert_close(together, uncond + 4.0 * (cond - uncond), rtol=1e-3, atol=1e-4)


def test_interventions_know_the_step_of_each_row(tiny):
    steps, seen = levels_of(tiny), []
    look = Intervention(MID, lambda x, c: seen.append((c.step, c.samples, len(x))))
    with torch.no_grad():
        tiny.denoise(tiny.noise(range(8)), steps, ["a cat"] * 8, interventions=[look])
    assert seen == [(step, (i,), 1) for i, step in enumerate(steps)]


def test_predictions_are_converted_row_by_row(tiny):
    steps, x, out = levels_of(tiny), tiny.noise(range(8)), tiny.noise(range(8, 16))
    for convert in (tiny.to_x0, tiny.to_eps, tiny.to_v):
        alone = [convert(x[[i]], out[[i]], steps[i]) for i in range(8)]
        torch.testing.assert_close(convert(x, out, steps), torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_rows_that_do_not_fit_are_refused(tiny):
    step = tiny.step_at(t=500)
    with pytest.raises(ValueError, match="2 rows, 3 steps, 2 prompts"):
        tiny.denoise(tiny.noise([0, 1]), [step] * 3, PROMPTS)
    with pytest.raises(ValueError, match="2 rows, 2 steps, 1 prompts"):
        tiny.denoise(tiny.noise([0, 1]), step, ["a cat"])


def test_levels_are_told_to_the_network_one_a_row(tiny):
    x = tiny.noise([0]).expand(3, -1, -1, -1)
    steps = [tiny.step_at(t=t) for t in (100, 100, 900)]
    with torch.no_grad():
        out = tiny.denoise(x, steps, ["a cat"] * 3)
    torch.testing.assert_close(out[0], out[1])
    assert not torch.allclose(out[0], out[2], atol=1e-3)


# gradients ----------------------------------------------------------------------------------------------


def double(scheduler):
    pipe = tiny_sd()
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    model = load(pipe.to(torch.float64))
    for part in model.components.values():
        part.requires_grad_(False)
    return model


def loss_of(model, words, push, **how):
    """A scalar of the final latents, with an intervention and a pushed activation."""
    prompts = [model.encode([t])[0] for t in PROMPTS]
    with torch.no_grad():
        base = prompts[0].embeds
    from dataclasses import replace

    prompts[0] = replace(prompts[0], embeds=base + words)
    change = [
        scale("unet/down.1.attn.0.0/cross_attn.out", 1.5, When({1, 2})),
        Intervention(MID, lambda x, _: x + push, When({0, 2})),
    ]
    *_, state = model.sample(prompts, seeds=[0, 1], steps=3, guidance=3.0, interventions=change, **how)
    return (state.latents * torch.linspace(-1, 1, state.latents.numel()).view_as(state.latents)).sum()


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_gradients_with_and_without_checkpoints_and_by_finite_differences(scheduler):
    model = double(scheduler)
    shape = model.encode(["a cat"])[0].embeds.shape
    words = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    push = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    plain = torch.autograd.grad(loss_of(model, words, push), (words, push))
    again = torch.autograd.grad(loss_of(model, words, push, recompute=True), (words, push))
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert float(a.abs().max()) > 0
    generator = torch.Generator().manual_seed(0)
    for i, at in enumerate((words, push)):
        way = torch.randn(at.shape, generator=generator, dtype=torch.float64)
        h, rounding = (1e-5, 1e-4) if scheduler == "DDIMScheduler" else (3e-3, 5e-3)  # DPM++ steps in float32
        with torch.no_grad():
            moved = [(words + s * h * way, push) if i == 0 else (words, push + s * h * way) for s in (1, -1)]
            up, down = (float(loss_of(model, *m)) for m in moved)
        assert float((plain[i] * way).sum()) == pytest.approx((up - down) / (2 * h), rel=rounding)


def test_steps_computed_again_refuse_hooks_that_would_be_gone_by_then(tiny):
    with intervening(tiny, zero(MID)) as account:
        with pytest.raises(RuntimeError, match=r"give them to the run itself: interventions="):
            next(tiny.sample(["a cat"], seeds=[0], steps=2, recompute=True))
        with torch.no_grad():
            list(tiny.sample(["a cat"], seeds=[0], steps=2))
    assert account.lines[0].steps == (0, 1)


class Weak(Guidance):
    """Against another network that reads the same."""

    def __init__(self, network):
        self.network = network

    def branches(self, model):
        return (GuidanceBranch("cond"), GuidanceBranch("weak", network=self.network))

    def combine(self, outputs, context, memory):
        return 2 * outputs["cond"] - outputs["weak"]


def first_weight(model):
    return next(n for n in dict(model.denoiser.named_parameters()) if n.endswith("attn2.to_v.weight"))


def edited(model):
    name = f"unet.{first_weight(model)}"
    return Edit.of(model, {name: 0.1 * torch.randn_like(model.parameter(name))})


@pytest.mark.parametrize("moment", ["taken off", "applied", "replaced", "a branch's own network", "watched"])
def test_gradients_of_another_model_than_the_run_was_made_with_are_refused(moment):
    model = double("DDIMScheduler")
    push = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    own = copy.deepcopy(model.denoiser)
    change = Intervention(MID, lambda x, _: x + push)

    def loss():
        more = {"guidance": Weak(own)} if "network" in moment else {}
        run = model.sample(["a cat"], seeds=[0], steps=2, interventions=[change], recompute=True, **more)
        return list(run)[-1].latents.square().sum()

    edit = edited(model)
    with edit.applied(model) if moment == "taken off" else nullcontext():
        made = loss()
        if moment == "taken off":
            assert torch.autograd.grad(loss(), push)[0].abs().max() > 0
    wrong = r"unet is not as it was .* inside the with block"
    with ExitStack() as stack:
        if moment == "applied":
            stack.enter_context(edit.applied(model))
        if moment == "replaced":
            model.pipe.unet = own
        if moment == "watched":
            stack.enter_context(intervening(model, scale(MID, 2.0)))
            wrong = r"interventions=\[\.\.\.\], and call backward"
        if "network" in moment:
            with torch.no_grad():
                own.get_parameter(first_weight(model)).mul_(2)
        with pytest.raises(StateError, match=wrong):
            made.backward()


def test_gradients_do_not_ask_for_text_encoders_as_they_were():
    """What they read was read before the first step."""
    model = double("DDIMScheduler")
    push = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    name = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
    edit = Edit.of(model, {name: torch.ones_like(model.parameter(name))})
    change = Intervention(MID, lambda x, _: x + push)

    def loss(**how):
        return list(model.sample(["a cat"], seeds=[0], steps=2, interventions=[change], **how))[
            -1
        ].latents.sum()

    with edit.applied(model):
        wanted = torch.autograd.grad(loss(), push)[0]
        made = loss(recompute=True)
    torch.testing.assert_close(torch.autograd.grad(made, push)[0], wanted)


def test_what_is_computed_again_is_not_counted_again(tiny):
    watch = Intervention(MID, lambda x, _: None)
    states = list(tiny.sample(["a cat"], seeds=[0], steps=2, interventions=[watch], recompute=True))
    states[-1].latents.sum().backward()
    assert states[-1].account.lines[0].calls == 2
    for part in tiny.components.values():
        part.zero_grad(set_to_none=True)
