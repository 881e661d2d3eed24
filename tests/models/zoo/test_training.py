"""Every training script takes real steps on a few plain pictures; laws of what they share."""

from __future__ import annotations

import copy
import csv
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from denoscope.models import zoo
from denoscope.models.judges import Attributes, load_judge
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.zoo.training.data.sampling import Mix
from denoscope.models.zoo.training.fit import tokenizer, train_clip, train_denoiser, train_judge, train_vae
from denoscope.models.zoo.training.fit.denoisers import (
    SCHEDULE,
    Text,
    new_plain_unet,
    new_transformer,
    new_unet,
    predicted,
)
from denoscope.models.zoo.training.fit.inputs import Latents, Pixels
from denoscope.models.zoo.training.fit.objectives import Velocity
from denoscope.models.zoo.training.fit.training import TrainingRun, follow

sys.path.insert(0, str(Path(__file__).parent))
from planted import COLOURS, pictures


@pytest.fixture
def two_steps(monkeypatch):
    """Training ends after two steps instead of minutes."""
    monkeypatch.setattr(TrainingRun, "done", property(lambda run: run.step >= 2))


def test_a_run_goes_on_where_it_stopped(tmp_path):
    run, module = TrainingRun(tmp_path, minutes=1), nn.Linear(2, 2)
    run.step, run.start = 7, run.start - 30
    run.note({"loss": 0.5})
    run.save(module)
    again, other = TrainingRun(tmp_path, minutes=1), nn.Linear(2, 2)
    assert again.restore(other)
    assert torch.equal(other.weight, module.weight)
    assert again.step == 7 and 0.5 <= again.fraction < 0.6 and not again.done
    assert [row["step"] for row in csv.DictReader((tmp_path / "log.csv").read_text().splitlines())] == ["7"]
    assert not list(tmp_path.glob("*.partial"))
    assert not TrainingRun(tmp_path / "new", minutes=1).restore(other)


def test_learning_rate_rises_stays_and_falls(tmp_path):
    run = TrainingRun(tmp_path, minutes=1)
    run.step = 9
    assert run.rate(1.0, warmup=100) == pytest.approx(0.1)
    run.step, begin = 1000, run.start
    assert run.rate(1.0) == pytest.approx(1.0)
    run.start = begin - 42  # 70 % of the budget, half of the way down
    assert run.rate(1.0, flat=0.4) == pytest.approx(0.5, abs=0.02)
    run.start = begin - 600
    assert run.rate(1.0) == pytest.approx(0.02)


def test_running_average_follows_the_model():
    model, average = nn.Linear(3, 3), nn.Linear(3, 3)
    before = average.weight.clone()
    follow(average, model, step=10_000, decay=0.9)
    assert torch.allclose(average.weight, 0.9 * before + 0.1 * model.weight, atol=1e-6)
    follow(average, model, step=0, decay=0.9)  # early on it keeps little of the start
    assert (average.weight - model.weight).abs().max() < 0.1 * (before - model.weight).abs().max()


def test_denoiser_loss_is_that_of_diffusers_velocity():
    """A network that predicts nothing has the weighted size of the velocity as its loss."""

    class Nothing(nn.Module):
        def forward(self, x, times, encoder_hidden_states):
            return type("Out", (), {"sample": torch.zeros_like(x)})

    scheduler, latents = DDIMScheduler(**SCHEDULE), torch.randn(6, 4, 16, 16)
    torch.manual_seed(3)
    times = ((torch.arange(6) + torch.rand(6)) / 6 * 1000).long()  # one from each sixth of the schedule
    noise = torch.randn_like(latents)
    velocity = scheduler.get_velocity(latents, noise, times)
    ratio = scheduler.alphas_cumprod[times] / (1 - scheduler.alphas_cumprod[times])
    weight = torch.minimum(ratio, torch.tensor(5.0)) / (ratio + 1)  # min-SNR-5 for v-prediction
    torch.manual_seed(3)
    nothing = Text(torch.zeros(6, 1, 1), torch.ones(6, 1))
    loss = Velocity().loss(Nothing(), latents, nothing, torch.bfloat16)
    assert loss.item() == pytest.approx(
        2 * (weight * velocity.square().mean((1, 2, 3))).mean().item(), rel=1e-5
    )


def test_equal_captions_share_the_target():
    tokens = torch.tensor([[1, 2], [1, 2], [3, 4]])
    logits = torch.tensor([[9.0, 7, 0], [7, 9, 0], [0, 0, 9]])
    log = logits.log_softmax(1)
    expected = -((log[0, 0] + log[0, 1]) / 2 + (log[1, 0] + log[1, 1]) / 2 + log[2, 2]) / 3
    assert train_clip.loss_of(logits, tokens).item() == pytest.approx(expected.item())
    assert train_clip.loss_of(logits.flip(0), tokens) > 5


def test_judge_is_not_asked_what_a_picture_does_not_show():
    data = pictures()
    wanted = train_judge.targets(data.records)
    for i, record in enumerate(data.records):
        assert (wanted["gender"][i] >= 0) == record.is_person
        assert train_judge.LABELS["concept"][wanted["concept"][i]] == record.concept
    assert train_judge.LABELS["skin"][wanted["skin"][6]] == "yellow"  # a person without a tone


def test_augmented_pictures_keep_their_subject():
    data = pictures()
    changed = train_judge.augment(data.pixels)
    assert changed.shape == (len(data), 3, 64, 64) and not changed.requires_grad
    plain = data.on_white() * 2 - 1
    assert (changed[:, :, 28:36, 28:36] - plain[:, :, 28:36, 28:36]).abs().max() < 0.5
    assert (changed[0] - changed[1]).abs().max() > 0.02  # each in its own way
    torch.manual_seed(0)
    corners = train_judge.augment(data.pixels[:1].expand(400, -1, -1, -1))[:, :, 0, 0]
    assert 0.75 < (corners.amin(1) > 0.6).float().mean() < 0.95  # mostly on white


def test_judge_sees_single_pictures_and_places_of_scenes_with_their_own_labels():
    torch.manual_seed(0)
    data = pictures()
    shown, wanted = train_judge.Samples(data, composed=0.5, seed=1).draw(200, torch.device("cpu"))
    assert shown.shape == (200, 3, 64, 64) and all(len(labels) == 200 for labels in wanted.values())
    middles = (shown[:, :, 24:40, 24:40].mean((2, 3)) + 1) / 2
    table = torch.tensor([COLOURS[name] for name in COLOURS]) / 255
    seen = [list(COLOURS)[i] for i in torch.cdist(middles, table).argmin(1)]
    assert seen == [train_judge.LABELS["concept"][i] for i in wanted["concept"]]
    coloured = ((shown[:, :, 0, 0] + 1) / 2).amin(1) < 0.6
    assert coloured[100:].sum() > 2 * coloured[:100].sum() > 0  # half of the scenes have a ground


def test_normalised_latents_are_standard_and_decode_to_the_same():
    torch.manual_seed(0)
    vae, data = train_vae.new_vae((8, 8, 8)), pictures()
    shown = data.on_white() * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(shown).latent_dist.mean).sample
        sample = data.on_white(torch.arange(0, len(data), 3)) * 2 - 1
        deviation = vae.encode(sample).latent_dist.mean.std((0, 2, 3))
        spread = vae.encode(shown).latent_dist.std
        train_vae.normalise(vae, data)
        latents = vae.encode(sample).latent_dist.mean
        after = vae.decode(vae.encode(shown).latent_dist.mean).sample
        narrowed = vae.encode(shown).latent_dist.std
    assert torch.allclose(after, before, atol=1e-4)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(narrowed, spread / deviation.view(-1, 1, 1), rtol=1e-3)  # the noise scales along


def test_autoencoder_trains(tmp_path, two_steps):
    start = train_vae.new_vae((8, 8, 8))
    encoder = {k: v.clone() for k, v in start.encoder.state_dict().items()}
    decoder = start.decoder.conv_in.weight.clone()
    train_vae.train(pictures(), tmp_path, 1, start=start, batch=2)
    assert all(
        torch.equal(v, encoder[k]) for k, v in start.encoder.state_dict().items()
    )  # latents stay valid
    assert not torch.equal(start.decoder.conv_in.weight, decoder)
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_text_and_image_encoder_train(tmp_path, two_steps):
    data = pictures()
    words = tokenizer.train(tokenizer.corpus(data), tmp_path / "tokenizer", size=600)
    ids = words("a noto emoji of a dog").input_ids
    assert words.decode(ids, skip_special_tokens=True).strip() == "a noto emoji of a dog"
    assert len(ids) == 2 + 6  # frequent words are single tokens
    model = train_clip.train(data, words, tmp_path, 1, layers=1)
    from transformers import CLIPTextModel

    again = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    tokens = torch.tensor([ids])
    assert torch.allclose(again(tokens).pooler_output, model.text.text_model(tokens).pooler_output, atol=1e-5)
    assert (tmp_path / "judge" / "clip_image.safetensors").is_file()


def test_a_shipped_judge_is_trained_on_where_it_knows_the_same_labels(tmp_path, monkeypatch):
    started = train_judge.shipped(zoo.folder("emoji"))
    assert all(p.requires_grad for p in started.parameters())
    assert torch.equal(started.heads["style"].weight, load_judge().classifier.heads["style"].weight)
    assert not any(p.requires_grad for p in load_judge().classifier.parameters())  # that one stays frozen
    monkeypatch.setattr(train_judge, "LABELS", train_judge.LABELS | {"style": ("noto", "other")})
    with pytest.raises(ValueError, match="knows other labels than the world has; leave out --base"):
        train_judge.shipped(zoo.folder("emoji"))


def test_judge_trains(tmp_path, two_steps):
    start = Attributes(8, 8, train_judge.LABELS)
    before = start.heads["style"].weight.clone()
    model = train_judge.train(pictures(), pictures(), tmp_path, 1, start=start)
    assert not torch.equal(model.heads["style"].weight, before)
    assert set(train_judge.accuracy(model, pictures())) == {"style", "concept", "gender", "skin"}


@pytest.mark.parametrize(
    ("new", "entry"),
    [
        (lambda: new_unet((32, 32), states=16), "conv_in"),
        (lambda: new_transformer(2, 2, 16, states=16), "pos_embed.proj"),
        (lambda: new_plain_unet((16, 32), 16), "conv_in"),
    ],
    ids=["UNet", "transformer", "plain UNet"],
)
def test_denoiser_trains(new, entry, tmp_path, two_steps):
    pipe, denoiser = tiny_sd(), new()
    plain = type(denoiser).__name__ == "UNet2DModel"
    inputs = Pixels(16) if plain else Latents(pipe.vae, pipe.text_encoder, pipe.tokenizer)
    first = denoiser.get_submodule(entry).weight
    before = first.detach().clone()
    settings = train_denoiser.Settings(minutes=1, workers=1, batch=2, mix=Mix(0.0 if plain else 0.9, 0.1))
    last = {k: v.clone() for k, v in denoiser.state_dict().items() if "out" in k}
    train_denoiser.train(pictures(), inputs, denoiser, tmp_path, settings)
    assert any(not torch.equal(denoiser.state_dict()[k], v) for k, v in last.items())
    assert TrainingRun(tmp_path, 1).step == 2
    average = type(denoiser).from_pretrained(tmp_path / "denoiser", low_cpu_mem_usage=False)
    moved = (average.get_submodule(entry).weight - before).abs().max()
    assert moved <= 2 * (first - before).abs().max()
    kept = average.state_dict()
    assert any(not torch.equal(kept[k], v) for k, v in last.items())


def test_denoiser_trains_in_few_directions_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    first, settings = (
        new_plain_unet((16, 32), 16),
        train_denoiser.Settings(1, 2, workers=1, mix=Mix(0.0), rank=2),
    )
    changes = {}
    for steps in (2, 3):
        monkeypatch.setattr(TrainingRun, "done", property(lambda run, n=steps: run.step >= n))
        train_denoiser.train(pictures(), Pixels(16), copy.deepcopy(first), tmp_path, settings)
        kept = type(first).from_pretrained(tmp_path / "denoiser", low_cpu_mem_usage=False).state_dict()
        changes[steps] = {k: kept[k] - v for k, v in first.state_dict().items()}
    assert not torch.equal(changes[3]["conv_in.weight"], changes[2]["conv_in.weight"])
    assert changes[3]["conv_in.bias"].any()
    for name, change in changes[3].items():
        if name.split(".")[-1] == "weight" and change.ndim > 1:
            values = torch.linalg.svdvals(change.flatten(1).double())
            assert values[2:].max() < 1e-7 * kept[name].norm()  # how float32 rounds the weights


@pytest.mark.parametrize(
    ("settings", "message"), [({"rank": 0, "workers": 1}, "rank is 0"), ({"rank": 2}, "one process")]
)
def test_few_directions_are_asked_for_plainly(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_denoiser.train(
            pictures(),
            Pixels(16),
            new_plain_unet((16, 32), 16),
            tmp_path,
            train_denoiser.Settings(**settings),
        )


def test_a_new_transformer_predicts_nothing_and_reads_no_padding():
    torch.manual_seed(0)
    transformer = new_transformer(2, 2, 16, states=16).eval()
    x, times, states = torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        assert not predicted(transformer, x, times, Text(states, mask)).any()
        torch.nn.init.normal_(transformer.proj_out.weight)
        for block in transformer.transformer_blocks:
            torch.nn.init.normal_(block.attn2.to_out[0].weight)
        first = predicted(transformer, x, times, Text(states, mask))
        states[:, 3:] += 1  # padding of the first, words of the second
        second = predicted(transformer, x, times, Text(states, mask))
    assert torch.allclose(first[0], second[0], atol=1e-6)
    assert (first[1] - second[1]).abs().max() > 1e-4


def test_pixels_are_shrunk_pictures():
    shown = pictures().on_white()
    small = Pixels(32).encode(shown)
    assert small.shape == (len(shown), 3, 32, 32)
    assert torch.allclose(small.mean((2, 3)), shown.mean((2, 3)) * 2 - 1, atol=1e-6)
    assert Pixels(32).read(["a dog"]) is None


def test_kept_latents_are_dropped_with_another_autoencoder(tmp_path):
    pipe, data = tiny_sd(), pictures().select(range(4))
    parts = Latents(pipe.vae.eval(), pipe.text_encoder, pipe.tokenizer)
    first = train_denoiser._cached(data, parts, tmp_path / "inputs.safetensors")
    assert torch.equal(train_denoiser._cached(data, parts, tmp_path / "inputs.safetensors"), first)
    with torch.no_grad():
        pipe.vae.quant_conv.weight.mul_(-3)
    second = train_denoiser._cached(data, parts, tmp_path / "inputs.safetensors")
    assert torch.allclose(second, parts.encode(data.on_white()))
    assert not torch.allclose(first, second, atol=1e-2)
