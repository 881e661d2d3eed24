"""Depth of an edit: planted truth, with R made from F by an edit, and what cannot be measured said so."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoscope import load
from denoscope.analysis import Depth, depth
from denoscope.analysis.erasure.cuts import denoiser_cuts, text_cuts
from denoscope.editing import EditSettings, quickfix, uce
from denoscope.models.errors import UsageError
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_dit, tiny_sd3

KEPT = ["a house"]


@pytest.fixture(scope="module")
def gone(tiny: Any) -> Any:
    """A stand-in for a model that never saw a cat, and knows a house as before."""
    return uce(tiny, {"cat": "dog"}, keep=KEPT, settings=EditSettings(kept_tokens="all"))


def measured(model: Any, changed: Any, retained: Any, **settings: Any) -> Depth:
    return depth(model, changed, retained, ["a cat"], kept=KEPT, seeds=range(3), bins=1, steps=2, **settings)


@pytest.fixture(scope="module")
def whole(tiny: Any, gone: Any) -> Depth:
    """An edit that is just as if it had never been seen."""
    return measured(tiny, gone.applied, gone.applied)


def row(found: Depth, component: str = "unet", of: Any = "direction") -> Any:
    return found.to_frame(of, n_resamples=50, tolerance=0.5).set_index("component").loc[component]


def test_the_deeper_the_edit_the_larger_the_number(tiny: Any, gone: Any, whole: Depth) -> None:
    parts = [measured(tiny, (a * gone).applied, gone.applied) for a in (0, 0.5)]
    found = [row(part) for part in (*parts, whole)]
    depths = [r["depth"] for r in found]
    assert depths[0] == 0 < depths[1] < depths[2] == pytest.approx(1, abs=1e-5)
    assert found[1]["low"] <= depths[1] <= found[1]["high"]
    assert [r["state"] for r in found] == ["not touched: as before to the bit", "measured", "measured"]
    assert found[2]["cuts"] >= 2 and 0 < found[2]["twin"] < 0.25


def test_a_hybrid_is_as_deep_as_its_blocks(tiny: Any, gone: Any) -> None:
    early = {n: d for n, d in gone.deltas.items() if ".up_blocks." not in n}
    assert 0 < len(early) < len(gone.deltas)
    hybrid = type(gone)(early, {n: gone.base[n] for n in early})
    cuts = measured(tiny, hybrid.applied, gone.applied).cuts().set_index("cut")
    before, after = cuts.loc["unet/mid"], cuts.loc["unet/up.0"]
    assert before["edited"] == pytest.approx(before["retained"])  # all that R has by then
    assert after["edited"] == pytest.approx(before["retained"], abs=1e-4)  # and nothing that comes later
    assert after["edited"] < 0.9 * after["retained"]


def test_an_edit_of_the_text_encoder_is_a_lock_before_the_denoiser(
    tiny: Any, gone: Any, whole: Depth
) -> None:
    found = row(measured(tiny, quickfix(tiny, {"cat": "dog"}).applied, gone.applied))
    assert found["depth"] == 0 and found["state"] == "not touched: as before to the bit"
    assert row(whole, "text")["depth"] == 0


def test_a_text_encoder_that_never_saw_it_is_measured_in_its_layers(tiny: Any) -> None:
    read = quickfix(tiny, {"cat": "dog"}, keep=["", *KEPT], ridge=1e-6)
    found = measured(tiny, read.applied, read.applied)
    whole = found.to_frame(tolerance=1e9, n_resamples=50).set_index("component").loc["text"]
    assert whole["depth"] == pytest.approx(1) and whole["cuts"] == 2
    assert row(found)["state"] == "not touched: as before to the bit"


def test_a_broken_model_seems_deep_and_its_twin_tells(tiny: Any, gone: Any) -> None:
    @contextmanager
    def broken(model: Any) -> Any:
        weights = {n: torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) / 3
                   for n, p in ((n, model.parameter(n)) for n in gone.deltas)}  # fmt: skip
        with (
            type(gone)
            .of(model, {n: w - model.parameter(n).detach() for n, w in weights.items()})
            .applied(model)
        ):
            yield

    found = row(measured(tiny, broken, gone.applied))
    assert found["state"] == "broken: other things are hit as well" and found["twin"] > 0.5


def test_coordinates_that_do_not_agree_are_told(tiny: Any, gone: Any) -> None:
    other = load(tiny_sd())  # the same weights, its own network
    with torch.no_grad():
        block = other.pipe.unet.down_blocks[0].resnets[0]
        order = torch.randperm(block.conv2.weight.shape[0], generator=torch.Generator().manual_seed(1))
        for conv in (block.conv2, block.conv_shortcut):
            if conv is not None:
                conv.weight.copy_(conv.weight[order])
                conv.bias.copy_(conv.bias[order])
    found = measured(tiny, gone.applied, other)
    assert row(found)["not_comparable"] > 0
    odd = found.cuts().set_index("cut")["comparable"]
    assert not odd["unet/up.0"] and odd["unet/in"]


def test_without_anything_gone_there_is_no_depth(tiny: Any, gone: Any) -> None:
    same = load(tiny_sd())
    found = row(measured(tiny, gone.applied, same))
    assert np.isnan(found["depth"]) and found["state"] == "undefined: no cut carries it"


@pytest.mark.stress
def test_what_a_second_full_model_does_too_is_no_loss(tiny: Any, gone: Any) -> None:
    found = row(measured(tiny, gone.applied, gone.applied, second=gone.applied))
    assert np.isnan(found["depth"]) and found["cuts"] == 0
    half = measured(tiny, gone.applied, gone.applied, second=(0.1 * gone).applied)
    assert row(half)["depth"] == pytest.approx(1) and row(half)["unclipped"] > 1.01


def test_the_error_is_a_measure_too(tiny: Any, gone: Any) -> None:
    found = measured(tiny, (0.5 * gone).applied, gone.applied, pictures=torch.rand(3, 3, *tiny.size))
    values = found.data["worse"].sel(source="retained")
    assert float(abs(values).max()) > 0
    assert row(found, of="error")["state"] in ("measured", "undefined: no cut carries it",
                                               "broken: other things are hit as well")  # fmt: skip


def test_it_is_kept_and_shown(whole: Depth, tmp_path: Path) -> None:
    found = whole
    found.save(tmp_path / "depth.zarr")
    again = Depth.load(tmp_path / "depth.zarr")
    assert again.cuts().equals(found.cuts()) and repr(again) == repr(found)
    assert "unet/mid" in found._repr_html_()
    assert found.plot().data and float(found.maps().sel(cut="unet/up.0").item()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match="there are edited, retained"):
        found.maps("third")


def test_a_cut_of_a_unet_holds_the_open_skips(tiny: Any) -> None:
    cuts = {name: [str(s) for s in sites] for name, sites in denoiser_cuts(tiny).items()}
    assert list(cuts) == ["unet/in", "unet/down.0", "unet/down.1", "unet/mid", "unet/up.0", "unet/up.1"]
    assert cuts["unet/mid"][:-1] == cuts["unet/down.1"]
    assert cuts["unet/up.1"] == ["unet/up.1.res.1/resid.post"]  # all skips are used


def test_every_cut_carries_all_that_comes_before(tiny: Any) -> None:
    other = load(tiny_sd())
    with torch.no_grad():
        other.pipe.unet.conv_in.weight.mul_(1.5)
    found = measured(tiny, lambda model: _nothing(), other)
    shares = found.cuts().query("component == 'unet'")["retained"]
    assert np.allclose(shares, 1, atol=1e-4)


@contextmanager
def _nothing() -> Any:
    yield


def test_transformers_are_cut_at_their_blocks_with_both_streams() -> None:
    joint, plain = load(tiny_sd3()), load(tiny_dit())
    assert [len(sites) for sites in denoiser_cuts(joint).values()] == [2, 2, 1]
    assert all(len(sites) == 1 for sites in denoiser_cuts(plain).values())
    assert not text_cuts(plain) and len(text_cuts(joint)) > 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bins": 3}, "bins is 3"),
        ({"kept": []}, "kept"),
        ({"pictures": torch.rand(2, 3, 16, 16)}, "pictures"),
    ],
)
def test_what_cannot_be_measured(tiny: Any, gone: Any, wrong: Any, told: str) -> None:
    given = {"kept": KEPT, "seeds": [0], "bins": 1, "steps": 2, **wrong}
    with pytest.raises(UsageError, match=told):
        depth(tiny, gone.applied, gone.applied, ["a cat"], **given)


def test_another_architecture_is_refused(tiny: Any, gone: Any) -> None:
    with pytest.raises(UsageError, match="same architecture"):
        measured(tiny, gone.applied, load(tiny_sd3()))
