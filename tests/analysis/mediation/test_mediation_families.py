"""Causal mediation on every family that has a text encoder, through the same two functions."""

import numpy as np
import pytest
import torch

from denoscope.analysis import Noise, Swap, trace_denoiser, trace_text
from denoscope.analysis.mediation.corruption import corrupt, encode_rows
from denoscope.analysis.metrics import latent_distance
from denoscope.models.load import load
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from tests.models.families.test_families import FAMILIES, READING, opened

RUN = {"seeds": [0], "steps": 2, "metric": latent_distance(), "corruption": Noise(draws=2)}
TEXT = [name for name, family in FAMILIES.items() if family.encoders]


@pytest.mark.parametrize("name", TEXT)
def test_restoring_the_networks_output_gives_the_clean_picture(name):
    model = opened(name)
    part = model.input_site.component
    found = trace_denoiser(
        model, ["a red cat"], "cat", sites=[f"{part}/out/eps", str(model.input_site)], guidance=3.0, **RUN
    )
    far = float(found.corrupted.mean())
    last, first = found.restored.mean().values
    assert far > 1e-4 and last <= 1e-3 * far  # what batches of other sizes round differently
    assert abs(first - far) < 0.5 * far  # where only latents pass, the text is not restored
    assert set(found.restored.values["site"].values) == {f"{part}/out/eps", str(model.input_site)}


@pytest.mark.parametrize("name", TEXT)
def test_by_default_all_that_each_layer_adds_is_restored(name):
    model = opened(name)
    found = trace_denoiser(model, ["a red cat"], "cat", source="in_place", **{**RUN, "steps": 1})
    part = model.input_site.component
    blocks = {s.block for s in model.sites(f"{part}/**") if ".q_proj" in str(s)}
    assert blocks <= {site.split("/")[1] for site in found.restored.values["site"].values}
    assert np.isfinite(found.restored.values).all()


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_restored_texts_are_what_patching_by_hand_gives(name, encoder):
    """All tokens of one layer: this encoder reads the clean text; the others do not, as if they alone had
    been corrupted. Layers behind those that the denoiser reads are left out."""
    model = opened(name)
    with torch.no_grad():
        n = len(model.encode(["a red cat"])[0].of(encoder).tokens)
    found = trace_text(
        model, ["a red cat"], "cat", encoder=encoder, kinds=["resid.post"], tokens=[range(n)], **RUN
    )
    assert list(found.restored.values["site"].values) == [
        str(s) for s in model.sites(f"{encoder}/layer.*/resid.post")[: model.layers_read().get(encoder)]
    ]
    assert found.restored.values["token"].values[0].startswith(f"0-{n - 1}:")
    with torch.no_grad():
        clean = model.encode(["a red cat"])
        specs = corrupt(model, clean, ["cat"], RUN["corruption"])[0]
        others = [[i for i in c.interventions() if i.site.component != encoder] for c in specs]
        prompts = [*clean, *encode_rows(model, [("a red cat", put) for put in others])]
    want, *theirs = sweep(model, [SweepRun(p, 0) for p in prompts], steps=2).latents
    wanted = [float((x - want).square().mean().sqrt()) for x in theirs]
    far = found.corrupted.values[0, 0]
    ours = found.restored.values.values[0, 0, 0, 0]
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-3 * far.min())
    assert (abs(far - wanted) > 0.005 * far).all()  # there was something to bring back


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_the_subject_is_taken_out_of_every_encoder(name, encoder):
    model = opened(name)
    found = trace_text(model, ["a red cat"], "red", encoder=encoder, layers=[0], kinds=["mlp.out"], **RUN)
    roles = dict(
        zip(found.restored.values["token"].values, found.restored.values["role"].values, strict=True)
    )
    named = [label.split(":")[1] for label, role in roles.items() if role == "subject"]
    assert "".join(named) == "red"
    assert ("start" in roles.values()) == ("T5" not in type(model.components[encoder]).__name__)


def test_each_encoder_gets_its_own_noise():
    model = opened("sdxl")
    with torch.no_grad():
        ((draw,),) = corrupt(model, model.encode(["a cat"]), ["cat"], Noise(draws=1))
        corrupted = encode_rows(model, [(draw.text, draw.interventions())])[0]
        clean = model.encode(["a cat"])[0]
    (_, first), (_, second) = draw.added.values()
    assert not torch.allclose(first, second)
    halves = (corrupted.embeds - clean.embeds).abs().amax(0).split(16)
    assert all(float(half.max()) > 1e-3 for half in halves)
    assert (corrupted.pooled - clean.pooled).abs().max() > 1e-3


def test_a_model_of_classes_can_be_swapped_but_has_no_text_to_trace():
    with pytest.raises(ValueError, match="has no text encoder"):
        trace_denoiser(opened("dit"), ["cat"], "cat", **{**RUN, "corruption": Swap("cook")})


def test_an_unknown_encoder_is_refused():
    with pytest.raises(LookupError, match="no text encoder 'text_encoder_7'"):
        trace_text(opened("sd3"), ["a red cat"], "cat", encoder="text_encoder_7", **RUN)


@pytest.mark.filterwarnings("ignore:.*is cut off there")
@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_a_subject_that_clip_cut_off_is_taken_out_where_it_is_read(name):
    model = load(FAMILIES[name].make())
    text, last = "a zebra " * 5 + "red cat", model.text_encoders[-1]
    with torch.no_grad():
        prompt = model.encode([text])[0]
    corrupted = corrupt(model, [prompt], ["cat"], Noise(draws=1))[0][0]
    assert set(corrupted.added) == {last}
    few = {"layers": [0], "kinds": ["mlp.out"], "tokens": [0]}
    assert trace_text(model, [text], "cat", encoder=last, **few, **RUN).total()["mean"] != 0
    with pytest.raises(LookupError, match="no token stands for 'cat'"):
        trace_text(model, [text], "cat", **RUN)


@pytest.mark.parametrize("name", TEXT)
def test_words_that_no_tokenizer_knows_are_neither_traced_nor_swapped_in(name):
    model = opened(name)
    for prompt, subject, corruption in (("a 猫", "猫", Noise()), ("a cat", "cat", Swap("猫"))):
        for trace in (trace_text, trace_denoiser):
            with pytest.raises(LookupError, match="the tokenizer does not know '猫'"):
                trace(model, [prompt], subject, **{**RUN, "corruption": corruption})
