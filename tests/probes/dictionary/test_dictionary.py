"""A dictionary computes its formula, and an edit changes what it says and nothing else."""

import pytest
import torch
from torch.nn.functional import conv2d

from denoscope import Site, When, trace
from denoscope.models.errors import StateError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes import Channels, Dictionary
from denoscope.probes.dictionary.parameters import mixture
from tests.probes.dictionary.worlds import AFTER, BEFORE, TOKENS, random_dictionary, rng

RUN = {"prompts": ["a cat", "a dog"], "seeds": [0, 1], "steps": 3}
TOKEN_CHANNELS = Channels(Site(TOKENS), ("token", "channel"))
PICTURE = ("channel", "height", "width")


@pytest.fixture(scope="module")
def plain(tiny):
    return trace(tiny, sites=[TOKENS, BEFORE, AFTER], **RUN)


def written_out(d, x, level=0):
    """The formula, densely."""
    pre = (x - d.input_bias[level]) @ d.encoder.T + d.encoder_bias[level]
    top = pre.topk(d.k)
    z = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    return z, z @ d.decoder + d.output_bias[level]


def test_it_computes_its_formula(plain):
    d = random_dictionary(TOKEN_CHANNELS)
    z, made = written_out(d, plain[TOKENS])
    codes = d.encode(plain[TOKENS])
    assert codes.shape == (3, 2, 16)
    assert torch.allclose(codes.dense(), z, atol=1e-5)
    assert torch.allclose(d.decode(codes), made, atol=1e-5)
    assert torch.allclose(d.decode(codes.dense()), made, atol=1e-5)


def test_codes_are_in_float32_whatever_format_the_model_runs_in(plain):
    d = random_dictionary(TOKEN_CHANNELS)
    codes = d.encode(plain[TOKENS])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(d.encode(plain[TOKENS]).dense(), codes.dense())


def test_on_pictures_it_is_a_convolution_of_one_pixel():
    x = torch.randn(2, 16, 4, 4, generator=rng(3))
    d = random_dictionary(Channels(Site(AFTER), PICTURE))
    pre = conv2d(x - d.input_bias.view(1, -1, 1, 1), d.encoder[:, :, None, None], d.encoder_bias[0])
    top = pre.topk(d.k, dim=1)
    z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    made = conv2d(z, d.decoder.T[:, :, None, None], d.output_bias[0])
    codes = d.encode(x)
    assert torch.allclose(codes.dense().movedim(-1, 1), z, atol=1e-5)
    assert torch.allclose(d.decode(codes), made, atol=1e-5)


def test_a_kernel_as_large_as_the_map_is_one_convolution():
    x = torch.randn(2, 3, 4, 5, generator=rng(3))
    d = random_dictionary(Channels(Site(AFTER), PICTURE, grid=(3, 4, 5)), d=60)
    d = Dictionary(d.channels, *(d.tensors()[n] for n in ("encoder", "decoder", "encoder_bias")),
                   torch.zeros(1, 60), d.output_bias, k=3)  # fmt: skip
    kernel = d.encoder.reshape(-1, 4, 5, 3).permute(0, 3, 1, 2)
    pre = conv2d(x, kernel, d.encoder_bias[0])[..., 0, 0]
    assert torch.allclose(d.encode(x).dense(), written_out(d, x.movedim(1, -1).flatten(1))[0], atol=1e-4)
    assert torch.allclose(d.encode(x).dense().max(-1).values, pre.max(-1).values, atol=1e-4)
    assert d.decode(d.encode(x)).shape == x.shape


def test_a_change_of_nothing_is_the_plain_run_to_the_bit(tiny, plain):
    d = random_dictionary(TOKEN_CHANNELS)
    for nothing in ({"scale": 1.0}, {"add": 0.0}):
        run = trace(tiny, interventions=[d.edit([0, 5], **nothing)], **RUN)
        assert torch.equal(run.latents, plain.latents)


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        ({"scale": [2.0, 0.0]}, lambda z: z * torch.tensor([2.0, 0.0])),
        ({"add": 1.5}, lambda z: z + 1.5),
        ({"set": 0.5}, lambda z: torch.full_like(z, 0.5)),
    ],
    ids=["scale", "add", "set"],
)
@pytest.mark.parametrize("kind", ["state", "update", "transcoder"])
def test_an_edit_adds_what_the_features_changed_by(tiny, plain, kind, how, changed):
    """The error of the dictionary stays: x' - x = (z' - z) W_d, at the step where it acts and no other."""
    source = None if kind == "state" else Site(BEFORE)
    d = random_dictionary(Channels(Site(AFTER), PICTURE, kind, source))
    before, after = plain.at(BEFORE, 1), plain.at(AFTER, 1)
    read = {"state": after, "update": after - before, "transcoder": before}[kind]
    z = d.encode(read).of([3, 7])
    added = ((changed(z) - z) @ d.decoder[[3, 7]]).movedim(-1, 1)
    run = trace(tiny, sites=[AFTER], interventions=[d.edit([3, 7], **how, steps=[1])], **RUN)
    assert torch.equal(run.at(AFTER, 0), plain.at(AFTER, 0))
    assert torch.allclose(run.at(AFTER, 1) - after, added, atol=1e-5)
    assert added.abs().max() > 0.1


def test_steps_have_biases_of_their_own_and_are_interpolated(tiny, plain):
    sigmas = tuple(s.sigma for s in plain.steps)
    d = random_dictionary(TOKEN_CHANNELS, levels=sigmas)
    codes = d.encode(plain[TOKENS], plain.steps)
    for i, step in enumerate(plain.steps):
        assert torch.allclose(codes.dense()[i], written_out(d, plain[TOKENS][i], i)[0], atol=1e-5)
        assert torch.equal(d.encode(plain[TOKENS][i], step).dense(), codes.dense()[i])
    assert torch.allclose(d.decode(codes, plain.steps)[2], written_out(d, plain[TOKENS][2], 2)[1], atol=1e-5)
    between = mixture(sigmas, tiny.step_at(sigma=(sigmas[0] * sigmas[1]) ** 0.5))
    assert between.sum() == 1 and 0 < between[0] < 1 and 0 < between[1] < 1 and between[2] == 0
    edited = trace(tiny, sites=[TOKENS], interventions=[d.edit(0, set=1.0, steps=[2])], **RUN)
    z = codes.of([0])[2]
    assert torch.allclose(edited.at(TOKENS, 2) - plain.at(TOKENS, 2), (1 - z) * d.decoder[0], atol=1e-5)


def test_it_is_a_file_and_comes_back(tmp_path):
    channels = Channels(Site(AFTER), PICTURE, "update", Site(BEFORE))
    d = random_dictionary(
        channels,
        levels=(float("inf"), 2.0),
        threshold=torch.ones(24),
        model="abc",
        record={"curve": [[0] * 6]},
    )
    d.save(tmp_path / "d")
    back = Dictionary.load(tmp_path / "d")
    assert back.channels == d.channels and (back.k, back.levels, back.model) == (3, d.levels, "abc")
    assert all(torch.equal(t, d.tensors()[n]) for n, t in back.tensors().items())
    assert back.digest == d.digest and len(back.to_frame()) == 1
    data = bytearray((tmp_path / "d").read_bytes())
    data[-1] ^= 1
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(UsageError, match="damaged dictionary"):
        Dictionary.load(tmp_path / "d")


def test_edits_are_values_by_what_they_do():
    d = random_dictionary(TOKEN_CHANNELS)
    again = random_dictionary(TOKEN_CHANNELS)
    assert d.edit([1], scale=2).key == again.edit([1], scale=2.0).key
    assert d.edit([1], scale=2).key != d.edit([1], scale=3).key != d.edit([2], scale=3).key
    assert d.edit([1], add=1, steps=[0], branch=None).when == When([0], None)
    assert torch.equal(d.direction(2).vector, d.decoder[2])


def acted(edit):
    return lambda model: trace(model, interventions=[edit], **RUN)


GOOD = random_dictionary(TOKEN_CHANNELS)
NARROW = random_dictionary(TOKEN_CHANNELS, d=8)
OF_PICTURES = random_dictionary(Channels(Site(TOKENS), PICTURE))
ABROAD = random_dictionary(TOKEN_CHANNELS, model="f" * 64)
LATE = random_dictionary(TOKEN_CHANNELS, levels=(0.9, 0.5))
NOT = {
    "no such feature": (lambda _: GOOD.edit([3, 24], scale=2.0), r"0 to 23; \[24\]"),
    "nan": (lambda _: GOOD.edit(3, add=float("nan")), "add is nan"),
    "too many strengths": (lambda _: GOOD.edit([3, 4], add=[1.0] * 3), "one for each of 2"),
    "two kinds": (lambda _: GOOD.edit(3, add=1.0, scale=2.0), "one of scale, add, set; got scale, add"),
    "none": (lambda _: GOOD.edit(3), "got none of them"),
    "steps beyond the run": (acted(GOOD.edit(3, add=1.0, steps=[3])), "steps 0 to 2"),
    "another width": (acted(NARROW.edit(3, add=1.0)), "reads 8 channels, .* has 16"),
    "other axes": (acted(OF_PICTURES.edit(3, add=1.0)), "with axes .*'height'.* it has .*'token'"),
    "another model": (acted(ABROAD.edit(3, add=1.0)), r"other weights .*transferred\(model\)"),
    "another noise level": (acted(LATE.edit(3, add=1.0, steps=[0])), "trained from 0.9 to 0.5"),
    "no steps given": (lambda _: LATE.encode(torch.ones(1, 2, 16)), "give steps="),
    "no channels": (lambda m: Channels.of(m, "unet/mid.attn.0.0/cross_attn.probs"), "no channels"),
    "no source": (lambda _: Channels(Site(AFTER), PICTURE, "update"), "name source"),
    "codes of another": (lambda _: GOOD.decode(torch.ones(1, 2, 5)), "has 24"),
    "k": (lambda _: random_dictionary(TOKEN_CHANNELS, k=25), "k is 25; it is from 1 to 24"),
}  # fmt: skip


@pytest.mark.parametrize("what", NOT)
def test_what_cannot_be_is_told_at_once(tiny, what):
    call, message = NOT[what]
    with pytest.raises((UsageError, StateError), match=message):
        call(tiny)


def test_it_can_be_handed_to_other_weights(tiny):
    other = load(tiny_sd(seed=1))
    d = ABROAD.transferred(other)
    trace(other, interventions=[d.edit(3, add=1.0)], **RUN)
    with pytest.raises(StateError, match="other weights"):
        trace(tiny, interventions=[d.edit(3, add=1.0)], **RUN)
