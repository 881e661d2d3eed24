"""Gradients and games: equal to a hand-written gradient, to differences, and complete."""

import itertools
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from denoscope.analysis import Attribution, Neuron, attribute
from denoscope.analysis.attribution.gradients.captum_methods import by_games
from denoscope.analysis.metrics import clip_score, text_fit
from denoscope.models.judges import load_judge
from denoscope.models.load import load
from denoscope.models.run.prediction import scales
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

RUN = {"seeds": [0], "steps": 2, "guidance": 3.0}
SITE = "unet/mid.attn.0.0/cross_attn.out"
PROMPT, LONG = "a red cat", "a very long red cat and a dog"


def energy(outcome):
    return outcome.latents.square().flatten(1).mean(1)


def bright(images, texts):
    return images.mean((1, 2, 3))[:, None]


@pytest.fixture(scope="module")
def pictures(tiny):
    return trace(tiny, ["a dog", "a cat"], seeds=[7, 8], steps=2).images


@pytest.fixture(scope="module")
def level(tiny):
    return tiny.step_at(log_snr=-1.0)


# exact ------------------------------------------------------------------------------------------------


def test_equals_a_hand_written_gradient(tiny, pictures, level):
    found = attribute(tiny, [PROMPT], of="fit", to="words", method="gradient_times_input", seeds=[5],
                      images=pictures[:1], at=level)  # fmt: skip
    prompt, other = tiny.encode([PROMPT, ""])
    embeds = prompt.embeds.detach().clone().requires_grad_()
    clean = tiny.encode_image(pictures[:1]).detach()
    a, s = scales(tiny.scheduler, level, clean)
    x = a * clean + s * tiny.noise([5])
    out = tiny.denoise(x, level, [replace(prompt, embeds=embeds)])
    score = -(tiny.to_x0(x, out, level) - clean).square().mean()
    (slope,) = torch.autograd.grad(score, embeds)
    by_row = ((prompt.embeds - other.embeds) * slope).sum(-1).detach()
    for word in ("a", "red", "cat"):
        expected = float(by_row[prompt.find(word)].sum())
        assert math.isclose(found.values.sel(word=word).item(), expected, rel_tol=1e-4, abs_tol=1e-9)
    assert math.isclose(found.data["score"].item(), float(score.detach()), rel_tol=1e-5)
    plain = attribute(tiny, [PROMPT], of="fit", to="words", method="gradient", seeds=[5],
                      images=pictures[:1], at=level)  # fmt: skip
    assert math.isclose(
        plain.values.sel(word="cat").item(), float(slope[prompt.find("cat")].norm()), rel_tol=1e-4
    )


@pytest.mark.parametrize("to", ["words", "latents", SITE])
def test_a_gradient_is_what_small_changes_do(to):
    """Of the end of a run with checkpointed steps, in double precision: along the path, a tiny bit of it."""
    model = load(tiny_sd().to(torch.float64))
    run = {**RUN, "of": energy, "to": to}
    found = attribute(model, [PROMPT], method="gradient_times_input", **run)
    whole = attribute(model, [PROMPT], method="integrated_gradients", points=1, batch=1, **run)
    assert whole.data["score"].item() == found.data["score"].item()
    from denoscope.analysis.attribution.gradients import targets
    from denoscope.analysis.attribution.gradients.scalars import Moment, scored
    from denoscope.models.site import Site

    prompt, other = model.encode([PROMPT, ""])
    first = model.start([0], 2).latents
    moment = Moment(model, prompt, other, 0, first, None, None, {"steps": 2, "guidance": 3.0})
    target = {
        "words": lambda: targets.TextRows.of(moment, "against"),
        "latents": lambda: targets.Latents(moment),
        SITE: lambda: targets.Activations.of(moment, Site(SITE), "against"),
    }[to]()
    score, move = scored(energy, moment), target.x - target.baseline
    with torch.no_grad():
        up, down = (float(score(*target.given(target.x + h * move))[0]) for h in (1e-4, -1e-4))
    assert math.isclose(float(found.values.sum()), (up - down) / 2e-4, rel_tol=1e-4)


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart-sigma", "sd3", "flux-dev", "sana"])
def test_every_family_that_reads_words(name):
    model = opened(name, FAMILIES[name].size)
    for to in ("words", "latents"):
        found = attribute(model, [PROMPT], of=energy, to=to, seeds=[0], steps=1, guidance=1.0, points=8)
        assert found.values.notnull().all() and abs(found.values).max() > 0
    height, width = found.values.shape[-2:]
    assert height * 2 == width and found.images.shape[1:] == (3, *FAMILIES[name].size)


# laws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["words", "latents", SITE, ["unet/in/text", "unet/mid.attn.0.0/mlp.out"]])
def test_integrated_gradients_are_complete(tiny, to):
    found = attribute(tiny, [PROMPT], of=energy, to=to, points=32, batch=32, **RUN)
    gap = abs(found.data["score"] - found.data["reference"]).max()
    assert gap > 1e-4
    assert float(abs(found.remainder).max()) < 0.01 * float(gap) + 1e-5


@pytest.mark.parametrize("orders", [3, None])
def test_shapley_values_share_out_the_whole(tiny, pictures, level, orders):
    found = attribute(tiny, ["cat", "dog"], of="shift", to="words", method="shapley", seeds=[1],
                      images=pictures, at=level, orders=orders)  # fmt: skip
    assert float(abs(found.remainder).max()) < 1e-6
    assert found.values.dims == ("word", "prompt", "seed")
    assert found.values.sel(word="dog", prompt="cat").isnull().all()
    assert (found.data["reference"] == 0).all()  # of the same text


def test_games_equal_their_definitions():
    """Three players, worth known for each coalition: all orders by hand; what is lost without each."""
    worth = torch.tensor([0.0, 1, 2, 5, 3, 4, 9, 20]).double()
    calls = []

    def f(coalitions):
        calls.append(coalitions)
        return worth[(coalitions.long() @ torch.tensor([1, 2, 4]))]

    expected = np.zeros(3)
    for order in itertools.permutations(range(3)):
        held = 0
        for player in order:
            expected[player] += float(worth[held | 1 << player] - worth[held]) / 6
            held |= 1 << player
    state = torch.get_rng_state()
    np.testing.assert_allclose(by_games("shapley", f, 3, None).numpy(), expected, rtol=1e-6)
    assert len(calls) <= 8
    many = by_games("shapley", f, 3, 4000).numpy()
    np.testing.assert_allclose(many, expected, atol=0.3)
    assert torch.equal(state, torch.get_rng_state())
    lost = by_games("ablation", f, 3, None).numpy()
    np.testing.assert_allclose(lost, [20 - 9, 20 - 4, 20 - 5], rtol=1e-6)


def test_a_word_that_nobody_reads_is_worth_nothing(tiny, pictures, level):
    """Against the same text nothing changes; a neuron before the text is met does not depend on words."""
    same = attribute(tiny, [PROMPT], of=energy, to="words", against=PROMPT, points=4, **RUN)
    assert float(abs(same.values).max()) == 0
    with pytest.raises(ValueError, match="does not depend on what it is attributed to"):
        attribute(tiny, [PROMPT], of=Neuron("unet/in/conv.out", 0), to="words", seeds=[0],
                  images=pictures[:1], at=level)  # fmt: skip


def test_a_neuron_owes_all_to_itself(tiny, pictures, level):
    """Its mean over places is linear in its own channel: exact with one point, and nothing else."""
    found = attribute(tiny, [PROMPT], of=Neuron(SITE, 3), to=[SITE], baseline="zero", points=1, seeds=[0],
                      images=pictures[:1], at=level)  # fmt: skip
    channels = found.data["channels"].squeeze()
    assert abs(channels.drop_isel(channel=3)).max() == 0
    assert math.isclose(float(channels[3]), found.data["score"].item(), rel_tol=1e-4)
    assert found.data["places"].shape[-2:] == (4, 4) and found.scores.values.dims[0] == "site"
    assert float(abs(found.remainder).max()) < 1e-6


def test_samples_are_as_if_alone(tiny):
    both = attribute(tiny, [PROMPT, "a dog"], of=energy, to="words", points=4, seeds=[0, 1], steps=1)
    alone = attribute(tiny, ["a dog"], of=energy, to="words", points=4, seeds=[1], steps=1, batch=2)
    own = both.values.sel(prompt="a dog", seed=1).dropna("word")
    for word in own["word"].values:
        assert math.isclose(own.sel(word=word).item(), alone.values.sel(word=word).item(), rel_tol=1e-3)


def test_a_judge_at_the_end_of_a_run(emoji):
    judge = load_judge("emoji")
    found = attribute(emoji, ["a noto emoji of a dog"], of=clip_score(judge), to="words", points=2, batch=2,
                      seeds=[0], steps=2, words=["dog", "noto"])  # fmt: skip
    assert found.data.attrs["of"] == "clip_score(own prompt)"
    assert list(found.values["word"].values)[:2] == ["dog", "noto"]
    assert "(other words)" in found.values["word"].values and abs(found.values).max() > 0


def test_results_are_saved_and_show_themselves(tiny, tmp_path):
    for i, to in enumerate(("words", "latents", [SITE])):
        found = attribute(tiny, [PROMPT], of=energy, to=to, points=2, **RUN)
        found.save(tmp_path / f"{i}.zarr")
        again = Attribution.load(tmp_path / f"{i}.zarr")
        xr.testing.assert_equal(again.values, found.values)
        assert found.plot().data and "energy" in repr(found) and "<table" in found._repr_html_()
    with pytest.raises(ValueError, match="lacks"):
        found.scores.save(tmp_path / "scores.zarr")
        Attribution.load(tmp_path / "scores.zarr")


# failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "integrated"}, ValueError, "did you mean 'integrated_gradients'"),
        ({"of": "fitt"}, ValueError, "did you mean 'fit'"),
        ({"of": "fit"}, ValueError, "give images and at"),
        ({"of": 3}, TypeError, "of is 3"),
        ({"of": Neuron(SITE, 10**4)}, ValueError, "has channels 0 to 15"),
        ({"of": Neuron("unet/mid.attn.0.0/cross_attn.probs", 0)}, ValueError, "no channels"),
        ({"of": Neuron("unet/nowhere/mlp.out", 0)}, LookupError, "no site"),
        ({"of": text_fit(bright, "x")}, ValueError, "no gradient"),
        ({"of": lambda outcome: outcome.latents}, TypeError, r"shape \[1\]"),
        ({"to": "word"}, LookupError, "did you mean 'words'"),
        ({"to": "unet/mid.attn.0.0/mlp.outt"}, LookupError, "no site matches"),
        ({"to": []}, ValueError, "to is empty"),
        ({"to": "text_encoder/layer.0/mlp.out"}, ValueError, "take to='words'"),
        ({"to": "latents", "method": "shapley"}, ValueError, "is a game of words"),
        ({"to": "latents", "baseline": "against"}, ValueError, "latents are of no text"),
        ({"baseline": "blur"}, ValueError, "baseline is 'blur'"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"points": 0}, ValueError, "points is 0"),
        ({"orders": 0, "method": "shapley"}, ValueError, "orders is 0"),
        ({"words": []}, ValueError, "words is empty"),
        ({"words": ["horse"]}, LookupError, "'horse' is not in the prompt"),
        ({"words": ["red cat", "cat"]}, ValueError, "share a token"),
        ({"prompts": []}, ValueError, "prompts"),
        ({"prompts": [PROMPT, PROMPT]}, ValueError, "prompts"),
        ({"images": torch.rand(1, 3, 16, 16)}, ValueError, "images and at go together"),
        ({"prompts": [LONG], "orders": None, "method": "shapley"}, ValueError, "orders=32"),
    ],
)  # fmt: skip
def test_bad_input_is_named(tiny, change, error, message):
    given = {"prompts": [PROMPT], "of": energy, "to": "words", **RUN, **change}
    with pytest.raises(error, match=message):
        attribute(tiny, given.pop("prompts"), **given)


def test_pictures_of_another_size_or_range_are_refused(tiny, level):
    run = {"of": "fit", "to": "words", "seeds": [0], "at": level}
    for images, message in (
        (torch.rand(1, 3, 24, 24), "24"),
        (torch.rand(1, 3, 16, 16) * 255, "0..1"),
        (torch.rand(2, 3, 16, 16), "one for each"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            attribute(tiny, [PROMPT], images=images, **run)
    with pytest.raises(ValueError, match="steps are of a run"):
        attribute(tiny, [PROMPT], images=torch.rand(1, 3, 16, 16), steps=3, **run)


def test_models_without_text_are_refused():
    with pytest.raises(ValueError, match="reads no prompt"):
        attribute(load(tiny_ddim()), ["a cat"], of=energy, to="words", seeds=[0], steps=1)


def test_nothing_of_captums_is_left(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(tiny, [PROMPT], of=energy, to=SITE, points=2, **RUN)
    assert not any(m._forward_hooks or m._backward_hooks for m in tiny.denoiser.modules())
    assert all(p.grad is None for p in tiny.denoiser.parameters())
