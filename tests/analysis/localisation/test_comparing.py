"""What differs between two models: swapped at the output it is the other one; what was changed is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig

import denoscope
from denoscope import Edit, Site
from denoscope.analysis import Comparison, compare
from denoscope.analysis.localisation.comparing import _places
from denoscope.analysis.metrics import latent_distance
from denoscope.models.synthetic.tiny import tiny_sd, tiny_unet
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3
from tests.analysis.mediation.test_mediation import height

HOW: dict[str, Any] = {"seeds": [0], "metric": height, "steps": 3, "guidance": 3.0}
CROSS = "unet/mid.attn.0.0/cross_attn.out"
OUT = "unet/out/eps"
NO_TEXT = "unet/down.0.res.0/resnet.out"
ROUNDING = 1e-4


def changed(model: Any, pattern: str, factor: float = 3.0) -> Edit:
    """An edit that scales the weights of some sites."""
    names = dict.fromkeys(n for s in model.sites(pattern) for n in model.weights(s))
    return Edit.of(model, {n: (factor - 1) * model.parameter(n).detach() for n in names})


@pytest.mark.parametrize("latents", ["same", "own"])
def test_swapped_at_the_output_the_picture_is_that_of_the_other(tiny: Any, latents: Any) -> None:
    other = denoscope.load(tiny_sd(seed=1))
    seen: list[torch.Tensor] = []

    def metric(outcome: Any) -> torch.Tensor:
        seen.append(outcome.latents)
        return height(outcome)

    found = compare(
        tiny, other, ["a red cat"], sites=[OUT, CROSS], latents=latents, **{**HOW, "metric": metric}
    )
    run = {"seeds": [0], "steps": 3, "guidance": 3.0}
    own = [denoscope.trace(m, ["a red cat"], **run).latents for m in (tiny, other)]
    first, second, out, cross = torch.cat(seen)
    torch.testing.assert_close(
        torch.stack([first, second, out]), torch.cat([*own, own[1]]), atol=ROUNDING, rtol=0
    )
    assert float((cross - second).abs().max()) > 100 * ROUNDING
    assert float(found.effect.mean().sel(site=OUT)) == pytest.approx(1, abs=1e-3)


def test_other_latents_are_another_question(tiny: Any) -> None:
    """What no changed weight reaches is the same network: it differs by its latents alone."""
    edit = changed(tiny, "unet/up.0.attn.0.0/cross_attn.out")
    same, own = (
        compare(tiny, edit.applied, ["a red cat"], sites=NO_TEXT, latents=how, **HOW)  # type: ignore[arg-type]
        for how in ("same", "own")
    )
    assert (same.similarity.values == 1).all() and (same.difference.values == 0).all()
    assert (same.effect.values == 0).all()
    assert (own.difference.values.sel(step=0) == 0).all() and (own.difference.values.sel(step=2) > 0).all()
    assert float(abs(own.effect.mean()).min()) > 0


@pytest.mark.parametrize("planted", [0, 2])
def test_finds_the_one_layer_that_was_changed(tiny: Any, planted: int) -> None:
    """Everything else that differs differs by it; swapped at the changed layer it is the other model."""
    crosses = tiny.sites("unet/**/cross_attn.out")
    edit = changed(tiny, str(crosses[planted]))
    found = compare(tiny, edit.applied, ["a red cat", "a cat"], sites=crosses, **HOW)
    assert found.effect.top(1) == [crosses[planted]]
    share, alike = found.effect.mean(), found.similarity.mean()
    assert float(share.sel(site=str(crosses[planted]))) == pytest.approx(1, abs=1e-3)
    first = found.difference.mean().max("step")
    assert (first[:planted] == 0).all() and (first[planted:] > 0).all()  # none before it
    assert (alike[:planted] == 1).all()
    frame = found.to_frame()
    assert frame.index[0] == str(crosses[planted]) and list(frame.columns) == [
        "effect", "low", "high", "cosine", "relative"
    ]  # fmt: skip
    tiny_now = compare(tiny, tiny, ["a cat"], sites=CROSS, **HOW)
    assert (tiny_now.similarity.values == 1).all()  # the edit is off again


def test_an_edit_of_a_text_encoder_is_seen_where_the_text_is_read(tiny: Any) -> None:
    edit = changed(tiny, "text_encoder/layer.0/mlp.out")
    layers = ["text_encoder/layer.0/self_attn.out", "text_encoder/layer.0/mlp.out"]
    found = compare(tiny, edit.applied, ["a red cat"], sites=[*layers, "unet/in/text", NO_TEXT], **HOW)
    assert found.effect.mean().values == pytest.approx([0, 1, 1, 0], abs=1e-3)
    assert (found.difference.mean().max("step").values > 0).tolist() == [False, True, True, False]
    default = [str(s) for s in _places(tiny, None, None)]
    assert default[0] == "unet/in/text" and CROSS in default


def test_a_lora_is_seen_where_it_acts() -> None:
    """One that is switched on for a while, and a second pipeline that has it."""
    pipe = tiny_sd()
    torch.manual_seed(0)
    near = r"mid_block.*attn2\.to_out\.0"
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=near, init_lora_weights=False))
    pipe.unet.disable_adapters()
    model = denoscope.load(pipe)

    @contextmanager
    def switched_on(_: Any) -> Iterator[None]:
        pipe.unet.enable_adapters()
        try:
            yield
        finally:
            pipe.unet.disable_adapters()

    sites = ["unet/down.1.attn.0.0/cross_attn.out", CROSS]
    found = compare(model, switched_on, ["a red cat"], sites=sites, **HOW)
    assert found.effect.mean().values == pytest.approx([0, 1], abs=1e-3)
    pipe.unet.enable_adapters()
    two = compare(denoscope.load(tiny_sd()), model, ["a red cat"], sites=sites, **HOW)
    np.testing.assert_allclose(two.effect.values, found.effect.values, atol=ROUNDING)


@pytest.mark.parametrize("family", [tiny_pixart_alpha, tiny_sd3, tiny_flux])
def test_on_other_families(family: Any) -> None:
    model, other = denoscope.load(family()), denoscope.load(family(seed=1))
    part = model.input_site.component
    sites = [f"{part}/out/eps", f"{part}/block.0/*attn.out*"]
    found = compare(model, other, ["a red cat"], sites=sites, **{**HOW, "steps": 2})
    assert float(found.effect.mean()[0]) == pytest.approx(1, abs=1e-2)
    assert np.isfinite(found.effect.values).all() and (found.difference.values > 0).all()
    assert str(_places(model, None, None)[0]) == f"{part}/in/text"


def test_a_model_and_itself_are_alike_and_share_nothing(tiny: Any) -> None:
    found = compare(tiny, tiny, ["a cat"], sites=[CROSS, OUT], **HOW)
    assert (found.similarity.values == 1).all() and (found.difference.values == 0).all()
    with pytest.raises(ValueError, match="the other model left the mean of height as it was"):
        _ = found.effect
    assert found.to_frame()["effect"].isna().all() and "nothing to share out" in repr(found)
    assert "nothing to share out" in found._repr_html_()
    assert float(found.total()["mean"]) == 0


@pytest.mark.stress
def test_windows_prompts_and_seeds_stand_for_themselves(tiny: Any, tmp_path: Path) -> None:
    edit = changed(tiny, CROSS, 5.0)
    how = {**HOW, "seeds": [0, 3], "guidance": 1.0}
    windows = [[0], [1, 2]]
    both = compare(tiny, edit.applied, ["a red cat", "a cat"], sites=[OUT, CROSS], windows=windows, **how)
    assert both.data["swapped"].dims == ("site", "window", "prompt", "seed")
    assert both.effect.values["window"].values.tolist() == ["0-0", "1-2"]
    one = compare(
        tiny, edit.applied, ["a cat"], sites=[CROSS], windows=[[1, 2]], batch=1, **{**how, "seeds": [3]}
    )
    there = both.data["swapped"].sel(site=CROSS, window="1-2", prompt="a cat", seed=3)
    assert float(one.data["swapped"].squeeze()) == pytest.approx(float(there), abs=ROUNDING)
    for of in ("similarity", "difference", "effect"):
        assert both.plot(of).data  # type: ignore[arg-type]
    both.save(tmp_path / "both")
    pd.testing.assert_frame_equal(Comparison.load(tmp_path / "both").to_frame(), both.to_frame())
    with pytest.raises(ValueError, match="written by Comparison.save"):
        both.effect.save(tmp_path / "scores")
        Comparison.load(tmp_path / "scores")
    assert isinstance(both, Comparison) and both.to_frame().index.names == ["site", "window"]


def test_what_cannot_be_compared_is_told(tiny: Any) -> None:
    def fail(other: Any, match: str, kind: Any = ValueError, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            compare(tiny, other, ["a cat"], **{**HOW, "sites": CROSS, **settings})

    deep = denoscope.load(tiny_sd(text_layers=3))
    fail(deep, r"text_encoder/layer.2/\S+ is in the second model alone")
    wide = tiny_sd()
    wide.unet = tiny_unet(attention_head_dim=4)
    shapes = r"attn.q is \[2, 16, 8\] in the first model and \[4, 16, 4\] in the second; compare"
    fail(denoscope.load(wide), shapes)
    later = tiny_sd()
    later.scheduler = DDPMScheduler()
    fail(denoscope.load(later), "schedulers differ")
    fail(lambda m: 3, "gave a int, not a context", TypeError)
    fail(tiny, "latents is 'mine'", latents="mine")
    fail(tiny, "has no steps", sites="text_encoder/layer.0/mlp.out", windows=[[0]])
    fail(tiny, "sites is empty", sites=[])
    fail(tiny, "steps .* reach past the run", windows=[[7]])
    with pytest.raises(ValueError, match="of is 'me'"):
        compare(tiny, tiny, ["a cat"], sites=CROSS, **HOW).plot("me")  # type: ignore[arg-type]


def test_the_other_is_taken_off_whatever_happens(tiny: Any) -> None:
    inside: list[int] = []

    @contextmanager
    def entered(model: Any) -> Iterator[None]:
        inside.append(1)
        try:
            yield
        finally:
            inside.pop()

    def metric(outcome: Any) -> torch.Tensor:
        assert not inside
        raise RuntimeError("metric")

    with pytest.raises(RuntimeError, match="metric"):
        compare(tiny, entered, ["a cat"], sites=CROSS, **{**HOW, "metric": metric})
    assert not inside
    near = compare(tiny, entered, ["a cat"], sites=Site(CROSS), **{**HOW, "metric": latent_distance()})
    assert near.data.attrs["rows"] == (2 * 2 + 2 + 2 * 2) * 3  # side by side, the other alone, one swap
