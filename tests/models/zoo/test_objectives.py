"""Objectives against their formulas and schedulers; joint attention and dropped skips as they are meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.zoo.training.data.sampling import Mix
from denoscope.models.zoo.training.fit import train_denoiser
from denoscope.models.zoo.training.fit.denoisers import (
    PURE_NOISE,
    SCHEDULE,
    Text,
    new_joint_transformer,
    new_plain_unet,
    new_unet,
    predicted,
)
from denoscope.models.zoo.training.fit.inputs import JointLatents, Latents, Pixels
from denoscope.models.zoo.training.fit.objectives import Flow, Velocity
from denoscope.models.zoo.training.fit.skips import skips_dropped
from denoscope.models.zoo.training.fit.training import TrainingRun
from denoscope.models.zoo.training.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from planted import pictures


class Said(nn.Module):
    """Says what it is told to, and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x, times):
        self.asked.append((x, times))
        return type("Out", (), {"sample": self.answer(x, times)})


@pytest.fixture
def two_steps(monkeypatch):
    """Training ends after two steps instead of minutes."""
    monkeypatch.setattr(TrainingRun, "done", property(lambda run: run.step >= 2))


def joint(pipe):
    torch.manual_seed(2)
    return JointLatents(pipe.vae, pipe.text_encoder.eval(), pipe.tokenizer, torch.randn(16, 16))


def test_flow_mixes_as_its_scheduler_does_and_wants_noise_minus_picture():
    clean, flow = torch.randn(64, 4, 8, 8), Flow()
    zero = Said(lambda x, _: torch.zeros_like(x))
    torch.manual_seed(4)
    loss = flow.loss(zero, clean, None, torch.bfloat16)
    noisy, times = zero.asked[0]
    torch.manual_seed(4)
    torch.rand(64)
    noise = torch.randn_like(clean)
    assert loss.item() == pytest.approx((noise - clean).square().mean().item(), rel=1e-5)
    levels = times / 1000
    mixed = (1 - levels.view(-1, 1, 1, 1)) * clean + levels.view(-1, 1, 1, 1) * noise
    assert torch.allclose(noisy, mixed, atol=1e-6)  # the levels went through times, and sums may cancel
    assert ((levels > 0.25) & (levels < 0.75)).float().mean() > 0.6  # the middle ones come most often
    assert times[1:].gt(times[:-1]).all()  # one from each part
    exact = Said(lambda x, t: (x - clean) / (t / 1000).view(-1, 1, 1, 1))
    assert flow.loss(exact, clean, None, torch.bfloat16) < 1e-4


def test_one_step_of_flows_scheduler_from_noise_is_the_picture():
    """The sign and the times of what is learnt are those of the scheduler that ships."""
    clean, scheduler = torch.randn(1, 4, 8, 8), Flow().scheduler()
    noise = torch.randn_like(clean)
    scheduler.set_timesteps(4)
    x = noise
    for time in scheduler.timesteps:
        x = scheduler.step(noise - clean, time, x, return_dict=False)[0]
    assert torch.allclose(x, clean, atol=1e-5)


def test_pure_noise_is_shown_asked_for_and_learnt():
    objective, clean = Velocity(PURE_NOISE), torch.randn(2000, 1, 2, 2)
    scheduler = objective.scheduler()
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999  # a run starts where training ended
    net = Said(lambda x, _: torch.zeros_like(x))
    for picture in (clean, 2 * clean):
        torch.manual_seed(0)
        objective.loss(net, picture, None, torch.bfloat16)
    (first, times), (second, _) = net.asked
    last = times == 999
    assert last.any() and torch.equal(first[last], second[last])  # nothing of the picture is left
    assert not torch.equal(first[~last], second[~last])

    def wrong_at_the_end(x, t):
        return torch.where((t == 999).view(-1, 1, 1, 1), 1e3, torch.zeros(()))

    errors = [
        Velocity(o).loss(Said(wrong_at_the_end), clean, None, torch.bfloat16) for o in (SCHEDULE, PURE_NOISE)
    ]
    assert errors[1] > 100 * errors[0]  # min-SNR weights alone would hardly see it


def test_weights_are_min_snr_5_with_a_floor_for_pure_noise():
    for objective, floor in ((Velocity(), 0), (Velocity(PURE_NOISE), 1)):
        alphas = objective.scheduler().alphas_cumprod
        torch.manual_seed(1)
        times = ((torch.arange(5) + torch.rand(5)) / 5 * 1000).long()
        ratio = alphas[times] / (1 - alphas[times])
        clean = torch.randn(5, 1, 4, 4)
        torch.manual_seed(1)
        torch.rand(5)
        noise = torch.randn_like(clean)
        wanted = objective.scheduler().get_velocity(clean, noise, times)
        weights = (ratio + floor).clamp(max=5) / (ratio + 1)
        torch.manual_seed(1)
        loss = objective.loss(Said(lambda x, _: torch.zeros_like(x)), clean, None, torch.bfloat16)
        assert loss.item() == pytest.approx(
            (2 * weights * wanted.square().mean((1, 2, 3))).mean().item(), rel=1e-5
        )


def test_a_new_joint_transformer_predicts_nothing_and_reads_padding():
    torch.manual_seed(0)
    network = new_joint_transformer(2, 2, 16, states=16).eval()
    x, times = torch.randn(2, 4, 16, 16), torch.tensor([3.5, 700.0])
    text = Text(torch.randn(2, 6, 32), torch.ones(2, 6), torch.randn(2, 32))
    with torch.no_grad():
        assert not predicted(network, x, times, text).any()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        first = predicted(network, x, times, text)
        text.states[0, 5] += 1  # the last token: of any text, padding too
        second = predicted(network, x, times, text)
        pooled = predicted(network, x, times, Text(text.states, text.mask, text.pooled + 1))
    assert (first[0] - second[0]).abs().max() > 1e-4 and torch.equal(first[1], second[1])
    assert (pooled - second).abs().amin(0).max() > 1e-4


def test_the_shipped_shape_fits_into_28_megabytes():
    tensors = new_joint_transformer().state_dict().values()
    assert 20e6 < 2 * sum(t.numel() for t in tensors) <= 28e6
    assert new_joint_transformer().config.num_layers == 6


def test_the_joint_recipe_trains(tmp_path, two_steps):
    recipe, network = RECIPES["emoji-mmdit"], new_joint_transformer(2, 2, 16, states=16)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    settings = train_denoiser.Settings(
        minutes=1, workers=1, batch=2, mix=Mix(0.5, 0.1), objective=recipe.objective
    )
    train_denoiser.train(pictures(), joint(tiny_sd()), network, tmp_path, settings)
    assert TrainingRun(tmp_path, 1).step == 2
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())
    kept = recipe.read.from_pretrained(tmp_path / "denoiser", low_cpu_mem_usage=False)
    assert type(kept).__name__ == "SD3Transformer2DModel"


def test_a_process_that_made_no_text_encoder_reads_captions_as_this_one():
    inputs, captions = joint(tiny_sd()), ["a red cat"]
    with multiprocessing.get_context("spawn").Pool(1) as started:
        theirs = started.apply(inputs.read, (captions,))
    ours = inputs.read(captions)
    assert torch.allclose(theirs.states, ours.states, atol=1e-6)  # another process may have other threads
    assert torch.allclose(theirs.pooled, ours.pooled, atol=1e-6)


def test_skips_are_dropped_for_whole_samples_of_inner_blocks_only():
    torch.manual_seed(0)
    unet = new_unet((32, 32, 64), states=16).eval()
    seen = []
    for block in unet.up_blocks:
        block.forward = lambda *a, call=block.forward, **k: (
            seen.append(k["res_hidden_states_tuple"]) or call(*a, **k)
        )
    x, times, text = (
        torch.randn(64, 4, 16, 16),
        torch.tensor(500),
        Text(torch.randn(64, 3, 16), torch.ones(64, 3)),
    )
    with torch.no_grad():
        plain = predicted(unet, x, times, text)
        whole, seen[:] = list(seen), []
        with skips_dropped(unet, 0.0):
            assert torch.equal(predicted(unet, x, times, text), plain)
        seen.clear()
        with skips_dropped(unet, 0.5):
            changed = predicted(unet, x, times, text)
        inner = seen[:-1]
        assert all(torch.equal(a, b) for a, b in zip(seen[-1][:1], whole[-1][:1], strict=True))
        gone = [torch.stack([s.flatten(1).abs().amax(1) == 0 for s in skips]) for skips in inner]
        for rows in gone:
            assert (rows[0] == rows[1]).all() and 0.2 < rows[0].float().mean() < 0.8
        assert not torch.equal(gone[0][0], gone[1][0])  # each block on its own
        kept = ~(gone[0][0] | gone[1][0])
        assert torch.allclose(changed[kept], plain[kept], atol=1e-5)
        assert not torch.allclose(changed[~kept], plain[~kept], atol=1e-3)
        assert torch.equal(predicted(unet, x, times, text), plain)  # nothing is left behind


def test_skips_are_kept_unless_a_recipe_says_so(tmp_path, two_steps, monkeypatch):
    assert {name: r.drop_skips for name, r in RECIPES.items() if r.drop_skips} == {"emoji": 0.15}
    assert train_denoiser.Settings().drop_skips == 0
    chances = []

    def noted(denoiser, chance):
        chances.append(chance)
        return skips_dropped(denoiser, chance)

    monkeypatch.setattr(train_denoiser, "skips_dropped", noted)
    pipe = tiny_sd()
    settings = train_denoiser.Settings(minutes=1, workers=1, batch=2, mix=Mix(0.0, 0.1), drop_skips=0.3)
    inputs = Latents(pipe.vae, pipe.text_encoder, pipe.tokenizer)
    train_denoiser.train(pictures(), inputs, new_unet((32, 32), states=16), tmp_path, settings)
    assert chances == [0.3, 0.3]


def test_skips_of_other_networks_and_other_chances_are_refused():
    with (
        pytest.raises(ValueError, match="this is a UNet2DModel"),
        skips_dropped(new_plain_unet((16, 32), 16), 0.1),
    ):
        pass
    unet = new_unet((32, 32), states=16)
    with pytest.raises(ValueError, match=r"dropped is 1\.0; it is 0 or more"), skips_dropped(unet, 1.0):
        pass


def test_people_train_on_to_pure_noise(tmp_path, two_steps):
    recipe = RECIPES["emoji-people"]
    assert recipe.objective.scheduler().config.timestep_spacing == "trailing"
    settings = train_denoiser.Settings(
        minutes=1, workers=1, batch=2, mix=recipe.mix, objective=recipe.objective
    )
    train_denoiser.train(pictures(), Pixels(16), new_plain_unet((16, 32), 16), tmp_path, settings)
    assert TrainingRun(tmp_path, 1).step == 2
