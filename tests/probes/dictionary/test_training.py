"""Training finds what was planted, keeps its shape, goes on to the bit, and is folded back exactly."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from denoscope import trace
from denoscope.models.errors import UsageError
from denoscope.probes import Channels, Learning, collect_activations, stability, train_dictionary
from denoscope.probes.dictionary.learning import Autoencoder, UnitNormAdam, geometric_median
from denoscope.probes.dictionary.measures import explained
from denoscope.probes.dictionary.training import learned
from tests.probes.dictionary.worlds import (
    AFTER,
    BEFORE,
    PLANTED,
    TOKENS,
    PlantedStore,
    random_dictionary,
    rng,
)

RUN = {"prompts": ["a cat"] * 3, "seeds": range(3), "steps": 2, "k": 2}
FEW = Learning(updates=4, rows=32)


class Stop(BaseException):
    """What a test stops with."""


@pytest.fixture(scope="module")
def planted():
    return PlantedStore()


def found_in(planted, fits, how, k=8, **more):
    return learned(planted, PLANTED, features=planted.n, k=k, how=how, fits=Path(fits), **more)


def test_a_planted_dictionary_is_found(planted, tmp_path):
    """Four times overcomplete, eight features a row that like to come together."""
    how = Learning(updates=400, rows=512, rate=1e-2)
    d = found_in(planted, tmp_path, how)
    cosines = (planted.truth @ normalize(d.decoder, dim=-1).mT).max(-1).values
    assert cosines.mean() > 0.9
    assert d.record["held_out"]["explained"] > 0.7
    assert d.record["held_out"]["dead"] < 0.05
    start = found_in(planted, tmp_path, Learning(updates=1, rows=512, rate=1e-6))
    assert (planted.truth @ start.decoder.mT).max(-1).values.mean() < 0.5
    curve = d.to_frame()
    assert len(curve) == 20 and curve["loss"].iloc[-1] < 0.5 * curve["loss"].iloc[0]


SMALL = PlantedStore(d=12, n=24, k=3, size=2000, held=200)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("selection", ["top-k", "batch-top-k"])
@pytest.mark.parametrize("conditioned", [False, True])
def test_the_dictionary_computes_what_was_trained(whiten, selection, conditioned, tmp_path):
    """Scales, whitening, biases of steps and thresholds are folded: on plain rows it explains as much."""
    how = Learning(selection, True, conditioned, whiten, updates=40, rows=128, rate=1e-2)
    d = found_in(SMALL, tmp_path, how, k=3)
    x, at = SMALL.rows(TOKENS, 0, 200, held=True)
    made, on = torch.empty_like(x), 0.0
    for i, step in enumerate(SMALL.steps):
        codes = d.encode(x[at == i][None], step)
        made[at == i] = d.decode(codes, step)[0]
        on += codes.l0 * int((at == i).sum()) / len(x)
    held = d.record["held_out"]
    assert explained(x, made) == pytest.approx((held["explained"], held["explained_by_channel"]), abs=1e-3)
    assert on == pytest.approx(held["l0"], abs=0.02)
    assert held["explained"] > 0.2
    assert len(d.levels) == (2 if conditioned else 0)


def test_rows_of_the_decoder_have_length_1_after_every_step_and_gradients_are_across():
    decoder, other = normalize(torch.randn(9, 5, generator=rng()), dim=-1).requires_grad_(), torch.ones(3)
    optimizer = UnitNormAdam([decoder, other.requires_grad_()], decoder=decoder, rate=0.3)
    for i in range(4):
        before = decoder.detach().clone()
        decoder.grad = torch.randn(9, 5, generator=rng(i))
        optimizer.step()
        assert (decoder.grad * before).sum(-1).abs().max() < 1e-6
        assert torch.allclose(decoder.norm(dim=-1), torch.ones(9), atol=1e-6)
        assert not torch.equal(decoder, before)


@pytest.mark.parametrize("aux", [0.0, 1 / 32])
def test_the_auxiliary_loss_brings_dead_features_back_and_little_else_does(aux):
    """Half of the features never win: their biases are low."""
    x, at = SMALL.rows(TOKENS, 0, 512)
    x = (x - x.mean(0)) / x.std()
    net = Autoencoder((x, x, 0 * at), features=24, k=1, levels=1, how=Learning(aux=aux), transcoder=False,
                      dead_after=2000, records=1)  # fmt: skip
    with torch.no_grad():
        net.encoder_bias[:, 12:] -= 2
    net.idle[12:] = 2000
    optimizer = UnitNormAdam(list(net.parameters()), decoder=net.decoder, rate=2e-2)
    for _ in range(30):
        optimizer.zero_grad()
        net.loss((x, x, 0 * at)).backward()
        optimizer.step()
    awake = 12 - int(net.dead[12:].sum())
    assert awake > 6 if aux else awake < 3


def test_one_that_was_stopped_goes_on_to_the_same_bits(tiny, tmp_path):
    whole = train_dictionary(tiny, TOKENS, learning=FEW, **RUN)

    def stop(done, total, what):
        if what == "fitting" and done == 3:
            raise Stop

    with pytest.raises(Stop):
        train_dictionary(tiny, TOKENS, store=tmp_path, learning=FEW, progress=stop, **RUN)
    again = train_dictionary(tiny, TOKENS, store=tmp_path, learning=FEW, **RUN)
    assert again.digest == whole.digest
    assert again.record == whole.record


def test_several_sites_are_sampled_once_and_every_kind_is_trained(tiny, tmp_path):
    collect_activations(tiny, [BEFORE, AFTER], RUN["prompts"], seeds=RUN["seeds"], steps=2,
                        store=tmp_path / "activations")  # fmt: skip
    for kind in ("state", "update", "transcoder"):
        source = None if kind == "state" else BEFORE
        d = train_dictionary(tiny, AFTER, store=tmp_path, learning=FEW, kind=kind, source=source, **RUN)
        assert d.channels == Channels.of(tiny, AFTER, kind=kind, source=source)
        trace(tiny, ["a cat"], seeds=[0], steps=2, interventions=[d.edit(0, add=1.0)])
    with pytest.raises(UsageError, match="something else: seeds was"):
        train_dictionary(tiny, AFTER, store=tmp_path, learning=FEW, **{**RUN, "seeds": range(1, 4)})


def test_maps_and_text_encoders_have_channels_too(tiny):
    maps = train_dictionary(tiny, AFTER, kernel="map", features=6, learning=FEW, **RUN)
    assert maps.channels.grid == (16, 4, 4) and maps.encoder.shape == (6, 256)
    layer = "text_encoder/layer.0/self_attn.out"
    text = train_dictionary(tiny, layer, learning=FEW, **RUN)
    for d in (maps, text):
        trace(tiny, ["a cat"], seeds=[0], steps=2, interventions=[d.edit([0, 1], set=2.0)])
    with pytest.raises(UsageError, match="has no steps; leave out conditioned"):
        train_dictionary(tiny, layer, learning=Learning(conditioned=True), **RUN)


def test_explained_variance_is_1_for_the_truth_and_0_for_the_mean():
    x = torch.randn(50, 4, generator=rng()) * torch.tensor([1.0, 5.0, 0.1, 0.0])
    assert explained(x, x) == (1.0, 1.0)
    assert explained(x, x.mean(0).expand_as(x)) == pytest.approx((0, 0), abs=1e-6)
    only = x.clone()
    only[:, 2] = 0
    assert explained(x, only) == pytest.approx((1.0, 2 / 3), abs=1e-3)


def test_the_geometric_median_does_not_follow_what_lies_far_off():
    x = torch.randn(101, 3, generator=rng())
    x[:20] += 1000
    assert geometric_median(x).norm() < 1 < x.mean(0).norm()


def test_the_same_features_are_found_again_and_others_are_not():
    a = random_dictionary(PLANTED, d=16, n=24)
    order = torch.randperm(24, generator=rng())
    b = type(a)(a.channels, *(a.tensors()[n] for n in ("encoder",)), a.decoder[order], a.encoder_bias,
                a.input_bias, a.output_bias, k=3)  # fmt: skip
    same, other = stability(a, b), stability(a, random_dictionary(PLANTED, d=16, n=24, seed=5))
    assert same.share() == 1 and torch.equal(order[same.nearest], torch.arange(24))
    assert other.share() == 0 and other.mean == pytest.approx(other.chance, abs=0.1)
    assert same.to_frame()["cosine"].min() == pytest.approx(1, abs=1e-6)
    with pytest.raises(UsageError, match="not over the same channels"):
        stability(a, random_dictionary(PLANTED, d=8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: train_dictionary(m, TOKENS, features=4, **{**RUN, "k": 5}), "k is 5 of 4 features"),
        (lambda m: train_dictionary(m, AFTER, kind="update", **RUN), "name source"),
        (lambda m: train_dictionary(m, AFTER, kind="update", source=TOKENS, **RUN), "have to be equal"),
        (lambda m: Learning(updates=0), "updates is 0"),
        (lambda m: Learning(rate=0.0), "rate is 0"),
        (lambda m: Learning(selection="relu"), "selection is 'relu'"),
    ],
)
def test_what_cannot_be_is_told(tiny, call, message):
    with pytest.raises(UsageError, match=message):
        call(tiny)


def test_what_never_changes_teaches_nothing(tmp_path):
    flat = PlantedStore(d=4, n=4, k=1, size=60, held=10)
    flat.values = torch.ones(60, 4)
    with pytest.raises(UsageError, match="the same in every row"):
        found_in(flat, tmp_path, FEW, k=1)
