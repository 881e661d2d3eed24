"""Sliders: a planted change is found, strengths mean what they say, nothing is left on the model."""

from __future__ import annotations

import pytest
import torch

from denoscope import Edit
from denoscope.editing import SliderFit, slider
from denoscope.editing.export import lora
from denoscope.editing.tuning import factors
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.directions.moments import Examples, Moments, moments, predicted

TEXTS = ["a red cat"], ["a blue cat"], ["a cat"]
QUICK = SliderFit(rank=2, steps=80, rate=0.02, most=1.5, seeds=[0], sampling_steps=3)
SITES = ["unet/mid.attn.0.0/self_attn.out", "unet/up.*/self_attn.out"]


def planted(model):
    """A change of rank 2 of each weight, large enough to be seen."""
    source = torch.Generator().manual_seed(3)
    shapes = {n: p.shape for s in SITES for site in model.sites(s) for n, p in model.weights(site).items()}
    deltas = {
        n: torch.randn(s[0], 2, generator=source) @ torch.randn(2, s[1], generator=source)
        for n, s in shapes.items()
        if len(s) == 2
    }
    return Edit.of(model, deltas)


def drawn(model, change):
    """Moments of which y is what the planted change makes of them."""
    texts = [t for some in TEXTS for t in some]
    read = dict(zip(texts, model.encode(texts), strict=True))
    found = moments(model, Examples(*(TEXTS[i] for i in (2, 0, 1))), read, seeds=[0], space="eps", steps=3,
                    guidance=None)  # fmt: skip
    with torch.no_grad(), change.applied(model):
        moved = predicted(model, "eps", found.x, found.steps, [read["a cat"]] * len(found.x))
    return Moments(found.x, found.steps, found.plain, moved - found.plain, found.pair), read


def test_a_planted_change_is_found_and_its_half_is_half(tiny, monkeypatch):
    wanted, read = drawn(tiny, 0.03 * planted(tiny))
    monkeypatch.setattr("denoscope.editing.tuning.slider.moments", lambda *_, **__: wanted)
    edit = slider(tiny, *TEXTS, sites=SITES, settings=QUICK)
    assert edit.to_frame()["rank"].max() <= 2 and 0 < edit.note["missed"] < 0.2
    for s in (-1.0, 0.5, 1.0):
        with torch.no_grad(), (s * edit).applied(tiny):
            said = predicted(tiny, "eps", wanted.x, wanted.steps, [read["a cat"]] * len(wanted.x))
        missed = (said - wanted.plain - s * wanted.apart).square().mean()
        assert missed < 0.2 * (s * wanted.apart).square().mean()


def test_weights_on_trial_are_those_of_the_edit(tiny):
    """Exact: what is trained with is what the Edit will do."""
    change = 0.3 * planted(tiny)
    x, steps, prompts = tiny.noise([0, 1]), [tiny.steps(3)[1]] * 2, tiny.encode(["a cat", "a dog"])
    weights = {n: tiny.parameter(n).detach() + d for n, d in change.deltas.items()}
    with torch.no_grad():
        tried = factors.Asked(tiny).with_weights(weights, "eps", x, steps, prompts)
        plain = predicted(tiny, "eps", x, steps, prompts)
        with change.applied(tiny):
            applied = predicted(tiny, "eps", x, steps, prompts)
    torch.testing.assert_close(tried, applied, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(tried, plain, atol=1e-3)


def test_what_is_no_slider_is_told(tiny, monkeypatch):
    for given, message in (
        ((["a cat"], ["a cat"]), "the same texts"),
        ((["a red cat"], []), "negative is "),
        ((["a red cat"], ["a blue cat"], ["a cat", "a dog"]), "1 positive, 1 negative, 2 neutral"),
    ):
        with pytest.raises(ValueError, match=message):
            slider(tiny, *given)
    with pytest.raises(ValueError, match=r"have no linear layer of the unet; choose some of model.sites"):
        slider(tiny, *TEXTS, sites=["unet/mid.res.0/resid.post"])
    with pytest.raises(LookupError, match="matches"):
        slider(tiny, *TEXTS, sites=["unet/mid.attn.9.*/self_attn.out"])
    with pytest.raises(RuntimeError, match=r"went astray; lower its rate: SliderFit\(rate=2\)"):
        slider(tiny, *TEXTS, settings=SliderFit(rank=1, steps=3, rate=8.0, seeds=[0], sampling_steps=2))
    for wrong in ({"rank": 0}, {"rate": float("nan")}, {"space": "v"}, {"seeds": []}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SliderFit(**wrong)
    monkeypatch.setattr(
        "denoscope.editing.tuning.factors.predicted", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        slider(tiny, *TEXTS, sites=SITES, settings=QUICK)  # the watch sees whether a weight was left


def test_it_goes_to_others_as_a_lora(tiny, tmp_path):
    quick = SliderFit(rank=1, steps=1, seeds=[0], sampling_steps=1)
    lora(tiny, slider(tiny, *TEXTS, settings=quick), tmp_path / "slider.safetensors")
    pipe = tiny_sd()
    pipe.load_lora_weights(tmp_path, weight_name="slider.safetensors")
    assert any("lora_A" in name for name, _ in pipe.unet.named_parameters())
