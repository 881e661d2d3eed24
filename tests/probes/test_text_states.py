"""States of texts: those that the model itself computes, each with its own tokens; clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoscope.models.places.hooks import inputs
from denoscope.models.site import Site
from denoscope.models.text.prompt import Words
from denoscope.probes.text_states import (
    TokenStates,
    layer_inputs,
    parts_reached,
    pooled_states,
    site_states,
    token_states,
)
from tests.models.families.test_families import READING, opened

TEXTS = ["a red dog", "a cat", "a red dog"]
SITE = "text_encoder/layer.1/mlp.out"


def given(model: Any, text: str, site: str) -> Tensor:
    """What one module is given for one text, seen with a plain hook."""
    seen: list[Tensor] = []
    hook = model.module(site).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        with torch.no_grad():
            model.encode([text])
    finally:
        hook.remove()
    return seen[0][0]


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_inputs_of_a_layer_are_those_of_each_text_with_the_encoders_own_tokens(
    name: str, encoder: str
) -> None:
    model, site = opened(name), f"{encoder}/layer.1/mlp.out"
    found = layer_inputs(model, TEXTS, site)
    assert list(found) == TEXTS[:2]
    for text, states in found.items():
        torch.testing.assert_close(states.values, given(model, text, site), rtol=0, atol=1e-5)
        assert states.words.tokens == model.encode([text])[0].of(encoder).tokens
    differ = (
        found["a red dog"].values[: found["a cat"].words.end]
        - found["a cat"].values[: found["a cat"].words.end]
    )
    assert differ.abs().max() > 1e-3


@pytest.mark.stress
def test_more_texts_than_one_batch_holds(tiny: Any) -> None:
    texts = [f"a {a}{b}" for a in "bcdfghkl" for b in "aeiouvwxy"]
    assert len(texts) > 64
    found, read = layer_inputs(tiny, texts, SITE), token_states(tiny, texts)
    site = Site("text_encoder/layer.1/resid.post")
    passed = site_states(tiny, texts, [site])[site]
    assert len(passed) == len(texts)
    torch.testing.assert_close(
        passed[64:66], site_states(tiny, texts[64:66], [site])[site], rtol=0, atol=1e-5
    )
    for text in (texts[0], texts[63], texts[64], texts[-1]):
        torch.testing.assert_close(found[text].values, given(tiny, text, SITE), rtol=0, atol=1e-5)
        assert found[text].words.text == read[text].words.text == text
        with torch.no_grad():
            alone = tiny.encode([text])[0].embeds
        torch.testing.assert_close(read[text].values, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "pixart-sigma"])
def test_what_the_denoiser_reads_token_by_token_and_pooled(name: str) -> None:
    model = opened(name)
    with torch.no_grad():
        prompts = {text: model.encode([text])[0] for text in TEXTS}
    for text, states in token_states(model, TEXTS).items():
        torch.testing.assert_close(states.values, prompts[text].embeds, rtol=0, atol=1e-5)
        assert states.words.find("a") == prompts[text].find("a")
    if prompts["a cat"].pooled is None:
        with pytest.raises(ValueError, match="reads no pooled text; take token_states"):
            pooled_states(model, TEXTS)
        return
    pooled = pooled_states(model, TEXTS)
    for text in TEXTS:
        torch.testing.assert_close(pooled[text], prompts[text].pooled, rtol=0, atol=1e-5)
    assert not torch.equal(pooled["a cat"], pooled["a red dog"])


@pytest.mark.parametrize(
    ("name", "site", "parts"),
    [
        ("sd", "text_encoder/layer.1/mlp.out", ("tokens",)),
        ("sdxl", "text_encoder/layer.0/mlp.out", ("tokens",)),
        ("sdxl", "text_encoder/layer.1/mlp.out", ()),  # behind the layer that is read
        ("sdxl", "text_encoder_2/layer.0/self_attn.out", ("tokens", "pooled")),
        ("sdxl", "text_encoder_2/layer.1/self_attn.out", ("pooled",)),
        ("sd3", "text_encoder/layer.1/mlp.out", ("pooled",)),
        ("sd3", "text_encoder_3/layer.1/mlp.out", ("tokens",)),
        ("flux-dev", "text_encoder/layer.0/mlp.out", ("pooled",)),
    ],
)
def test_it_is_known_by_which_way_a_layer_reaches_the_denoiser(
    name: str, site: str, parts: tuple[str, ...]
) -> None:
    assert parts_reached(opened(name), site, "a cat") == parts


def test_states_at_sites_are_those_of_the_encoder(tiny: Any) -> None:
    site = Site("text_encoder/layer.1/resid.post")
    found = site_states(tiny, TEXTS, [site])[site]
    theirs: list[Tensor] = []
    watch = tiny.module(site).register_forward_hook(lambda _, __, out: theirs.append(out.clone()))
    read = tiny.pipe.tokenizer(TEXTS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        tiny.pipe.text_encoder(read)
    watch.remove()
    assert torch.equal(found, theirs[0])  # one row for each text as given, named twice or not


def test_an_encoder_that_is_called_otherwise_than_once_a_text_is_refused(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States of one text under another's name would give a wrong edit without a word."""
    encode = tiny.encode
    monkeypatch.setattr(tiny, "encode", lambda texts: (encode(texts), encode(texts))[0])
    with pytest.raises(RuntimeError, match=r"was given \(2, 32, 32\) for 1 texts, not one state for each"):
        layer_inputs(tiny, ["a cat"], SITE)
    with pytest.raises(ValueError, match="'a cat' has 2 tokens but 3 states"):
        TokenStates(Words("a cat", ("a", "cat")), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("texts", "site", "error", "message"),
    [
        ("a cat", SITE, ValueError, r"texts is the single text 'a cat'; give a list: \['a cat'\]"),
        ([], SITE, ValueError, "texts is empty"),
        (["a cat"], "text_encoder/layer.9/mlp.out", LookupError, "no site"),
        (["a cat"], "unet/mid.attn.0.0/mlp.out", ValueError, "is not in a text encoder .* text_encoder"),
        (["a red " * 20], SITE, ValueError, "would be cut off"),
    ],
)
def test_bad_input_is_named(tiny: Any, texts: Any, site: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer_inputs(tiny, texts, site)
    with inputs(tiny, Site(SITE)) as seen:
        pass
    assert seen == []
