"""A lens on the layer that is read is the plain run; words and padding are its two parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from denoscope import load, trace
from denoscope.analysis.localisation.layer_lens import Lens, _Layers, lens
from denoscope.analysis.metrics import latent_distance
from denoscope.models.errors import UsageError
from denoscope.models.synthetic.tiny_families import tiny_pixart_alpha, tiny_sd3, tiny_sdxl

TEXTS = ["a red cat", "a dog"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "encoders"),
    [(None, 1), (tiny_sdxl, 2), pytest.param(tiny_sd3, 3, marks=pytest.mark.stress), (tiny_pixart_alpha, 1)],
)
def test_the_layer_that_is_read_is_the_plain_run_to_the_bit(tiny: Any, family: Any, encoders: int) -> None:
    model = load(family()) if family else tiny
    assert len(model.text_encoders) == encoders
    plain = model.encode(TEXTS)
    for encoder in model.text_encoders:
        for tokens in ("all", "words", "padding"):
            work = _Layers(model, plain, encoder, "as read", tokens, "final")
            for made, want in zip(work.read(work.sites[-1]), plain, strict=True):
                assert torch.equal(made.embeds, want.embeds) and made.digest == want.digest
        assert (
            not torch.equal(work.read(work.sites[0])[0].embeds, plain[0].embeds) or plain[0].mask is not None
        )
    ask: dict[str, Any] = {"seeds": [0], "metric": latent_distance(), "steps": 2, "guidance": 2.0, "batch": 1}
    found = lens(model, TEXTS[:1], **ask)
    assert torch.equal(
        found.latents[-1, 0], trace(model, TEXTS[:1], seeds=[0], steps=2, guidance=2.0).latents
    )
    assert float(found.scores.values.isel(site=-1).max()) == 0 < float(found.scores.values.isel(site=0).min())
    assert found.images.shape[:3] == found.latents.shape[:3]


def test_the_norm_is_left_out_or_added(tiny: Any) -> None:
    plain = tiny.encode(TEXTS)
    raw = _Layers(tiny, plain, "text_encoder", "none", "all", "final")
    assert torch.equal(raw.read(raw.sites[-1])[0].embeds, raw.states[raw.sites[-1]][0])
    model = load(tiny_sdxl())
    final = _Layers(model, model.encode(TEXTS), "text_encoder", "final", "all", "final")
    states = final.states[final.sites[-1]]
    want = model.pipe.text_encoder.text_model if hasattr(model.pipe.text_encoder, "text_model") else None
    norm = (want or model.pipe.text_encoder).final_layer_norm
    width = states.shape[-1]
    assert torch.equal(final.read(final.sites[-1])[0].embeds[:, :width], norm(states)[0])
    empty = _Layers(model, model.encode(TEXTS), "text_encoder_2", "as read", "all", "empty")
    assert torch.equal(empty.read(empty.sites[0])[0].pooled, model.encode([""])[0].pooled)
    same = _Layers(model, model.encode(TEXTS), "text_encoder_2", "as read", "all", "same layer")
    assert not torch.equal(same.read(same.sites[0])[0].pooled, same.plain[0].pooled)


def test_mistakes_are_told(tiny: Any) -> None:
    for name, known in (("norm", "'as read'"), ("tokens", "'all'"), ("pooled", "'final'")):
        with pytest.raises(ValueError, match=f"{name} is 'nonsense'; it is {known}, "):
            lens(tiny, TEXTS, seeds=[0], metric=latent_distance(), steps=1, **{name: "nonsense"})
    with pytest.raises(LookupError, match="no text encoder 'text_encoder_9'; it has text_encoder"):
        lens(tiny, TEXTS, seeds=[0], metric=latent_distance(), encoder="text_encoder_9", steps=1)


def test_a_saved_lens_has_its_pictures(tiny: Any, tmp_path: Path) -> None:
    found = lens(tiny, TEXTS, seeds=[0], metric=latent_distance(), steps=2)
    found.save(tmp_path / "lens")
    again = Lens.load(tmp_path / "lens")
    assert torch.equal(again.latents, found.latents) and again.images.shape == found.images.shape
    assert float((again.images - found.images.clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6
    xr.testing.assert_identical(again.scores.values, found.scores.values)
    found.scores.save(tmp_path / "scores")
    with pytest.raises(UsageError, match="written by Lens.save"):
        Lens.load(tmp_path / "scores")
