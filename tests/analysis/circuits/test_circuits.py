"""Circuits: a network is held exactly; hand-wired connections are found and no others; checks see both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import denoscope
from denoscope.analysis import Circuit, trace_circuit
from denoscope.analysis.circuits.freezing import Frozen
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes import Channels
from tests.dictionaries import doubled

BEFORE, AFTER = "unet/up.0.attn.1/resid.post", "unet/up.0.upsample/out"
EARLY, LATE = "unet/mid.res.0/resid.post", "unet/mid.res.1/resid.post"
ASKED = {"prompt": "a red cat", "word": "red", "seed": 0, "step": 1, "steps": 2, "guidance": 3.0}
WIRES = {7: (3, 1.0), 2: (5, -2.0), 11: (11, 0.5)}
"""Target channel -> source channel and weight; all other weights between the two sites are 0."""


def network(x):
    """All that is not linear in a denoiser, once."""
    x = F.silu(F.group_norm(x, 2, torch.arange(1.0, 5.0).double(), torch.ones(4).double()))
    q, k, v = F.layer_norm(x.mT, (4,)).chunk(3, 1)
    y = v + F.scaled_dot_product_attention(q, k, v) + (q @ k.mT).softmax(-1) @ v
    return y * F.gelu(q) + F.gelu(v, approximate="tanh")


def test_a_held_network_has_the_same_value_and_is_linear():
    x, d = torch.randn(2, 2, 4, 9, generator=torch.Generator().manual_seed(0)).double()
    start, moved = x.clone().requires_grad_(), (x + d).requires_grad_()
    with Frozen() as held:
        value = network(start)
    torch.testing.assert_close(value, network(x))
    with Frozen(held.tape):
        there = network(moved)
    (slope,) = torch.autograd.grad(value.sum(), start)
    said, value = float((slope * d).sum()), value.detach()
    assert float((there.detach() - value).sum()) == pytest.approx(said, abs=1e-9)
    assert float((network(x + d) - value).sum()) != pytest.approx(
        said, abs=0.01
    )  # the network itself is not linear


@pytest.fixture(scope="module")
def wired():
    """A tiny model whose upsampling connects three pairs of channels, and nothing else."""
    model = denoscope.load(tiny_sd())
    conv = model.denoiser.up_blocks[0].upsamplers[0].conv
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        for target, (source, weight) in WIRES.items():
            conv.weight[target, source, 1, 1] = weight
    return model


@pytest.fixture(scope="module")
def planted(wired):
    return trace_circuit(wired, doubled(wired, BEFORE), doubled(wired, AFTER), **ASKED)


def test_planted_connections_are_found_and_no_others(planted):
    edges = planted.data["predicted"]
    assert {int(t) % 16 for t in edges["target"].values} == set(WIRES)
    for target in edges["target"].values:
        source, weight = WIRES[int(target) % 16]
        theirs = edges.sel(target=target)
        own = theirs[theirs["source"].values % 16 == source]
        assert abs(float(abs(theirs).sum() - abs(own).sum())) < 1e-6 and float(abs(own).max()) > 0
        # a feature leads to that of the same sign where the weight is positive
        same = own[(own["source"].values // 16 == int(target) // 16) == (weight > 0)]
        assert float(abs(same).sum()) > 0.5 * float(abs(own).sum())
    assert planted.data.attrs["gap"] < 1e-5 and float(abs(planted.data["from_rest"]).max()) < 1e-6
    told = planted.agreement().loc["graph"]
    assert told["pearson"] > 0.98 and told["slope"] == pytest.approx(1, abs=0.2)


@pytest.mark.stress
def test_all_features_together_are_all_that_passes(wired):
    every = {**ASKED, "features": 32}
    whole = trace_circuit(wired, doubled(wired, BEFORE), doubled(wired, AFTER), **every)
    told = whole.data
    assert float(told["carried"].sum()) == pytest.approx(told.attrs["through_targets"], abs=1e-5)
    np.testing.assert_allclose(told["from_all"], told["predicted"].sum("source"), atol=1e-5)
    necessary = whole.faithfulness().loc["necessary"]
    assert necessary["circuit"] == pytest.approx(
        necessary["random"], abs=1e-4
    )  # there is nothing else to draw


def test_through_attention_norms_and_gates_edges_add_up(tiny):
    found = trace_circuit(tiny, doubled(tiny, EARLY), doubled(tiny, LATE), **ASKED)
    assert found.data.attrs["gap"] < 1e-4
    told = found.agreement()
    assert told.loc["graph", "pearson"] > 0.9 and told.loc["random", "edges"] == 64
    assert found.data.sizes["circuit"] == 21 and len(found.to_frame()) <= 64


def test_it_is_kept_and_shows_itself(planted, tmp_path):
    planted.save(tmp_path / "c.zarr")
    again = Circuit.load(tmp_path / "c.zarr")
    assert again.data.equals(planted.data) and repr(again) == repr(planted) and "table" in again._repr_html_()
    frame = again.to_frame()
    assert list(frame) == ["source", "target", "predicted", "measured"]
    kept = float(abs(frame["predicted"]).sum() / abs(planted.data["predicted"]).sum())
    assert 0.8 <= kept <= 1


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"word": "blue"}, NotFoundError, "blue"),
        ({"step": 2}, UsageError, "steps are 0 to 1"),
        ({"features": 0}, UsageError, "features 1 up"),
        ({"source": LATE, "target": EARLY}, UsageError, "does not depend on"),
    ],
)
def test_what_is_no_circuit_is_told(tiny, wrong, error, message):
    given = {**ASKED, "source": EARLY, "target": LATE, **wrong}
    source, target = (doubled(tiny, given.pop(end)) for end in ("source", "target"))
    with pytest.raises(error, match=message):
        trace_circuit(tiny, source, target, **given)


def test_a_dictionary_of_updates_is_refused(tiny):
    plain = doubled(tiny, LATE)
    channels = Channels.of(tiny, LATE, kind="update", source=LATE.replace("post", "pre"))
    with pytest.raises(UsageError, match="not of single positions of one site"):
        trace_circuit(tiny, plain, replace(plain, channels=channels), **ASKED)
