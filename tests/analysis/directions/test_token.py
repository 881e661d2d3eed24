"""Directions of the encoded text: exactly the differences of rows; learned ones by the published loss."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import save_file

from denoscope import trace
from denoscope.analysis import Learned, cosine_table, random_like, read_delta, token_direction
from denoscope.analysis.directions import learned
from denoscope.analysis.directions.learned import learn
from denoscope.models.load import load
from denoscope.models.synthetic.tiny_families import tiny_sdxl
from denoscope.probes.directions.moments import Examples, moments

POSITIVE, NEGATIVE = ["a red cat", "the red dog"], ["a blue cat", "the blue dog"]
SUBJECTS = ["cat", "dog"]


@cache
def xl():
    return load(tiny_sdxl())


def test_the_contrast_is_the_difference_of_rows(tiny):
    """Against a loop over the texts, one at a time."""
    d = token_direction(tiny, POSITIVE, NEGATIVE, SUBJECTS)
    wanted = torch.zeros(3, 16)
    for texts, sign in ((POSITIVE, 1), (NEGATIVE, -1)):
        for text, subject in zip(texts, SUBJECTS, strict=True):
            p = tiny.encode([text])[0]
            rows = p.embeds[p.find(subject)[-1]], p.embeds[p.end], p.embeds[p.end + 1 :].mean(0)
            wanted += sign * torch.stack(rows) / 2
    assert str(d.site) == "unet/in/text"
    assert d.rows.kinds == ("subject", "end", "padding") and d.rows.subject is None
    torch.testing.assert_close(d.vector, wanted, atol=1e-5, rtol=1e-5)
    assert d.about["pairs"][1] == ["the red dog", "the blue dog"] and d.about["weights"]


def test_each_text_is_encoded_once(tiny, monkeypatch):
    asked = []
    encode = type(tiny)._encode

    def told(self, texts, **how):
        asked.append(texts)
        return encode(self, texts, **how)

    monkeypatch.setattr(type(tiny), "_encode", told)
    token_direction(tiny, ["a red cat", "a red cat"], ["a blue cat", "a cat"], "cat")
    assert sorted(t for some in asked for t in some) == ["a blue cat", "a cat", "a red cat"]


def test_two_encoders_and_the_pooled_text_at_once():
    model = xl()
    d = token_direction(model, POSITIVE, NEGATIVE, SUBJECTS)
    assert list(map(str, d.sites)) == ["unet/in/text", "unet/in/pooled"]
    read = {t: model.encode([t])[0] for t in POSITIVE + NEGATIVE}
    pooled = sum(read[p].pooled - read[n].pooled for p, n in zip(POSITIVE, NEGATIVE, strict=True)) / 2
    torch.testing.assert_close(d["unet/in/pooled"].vector, pooled, atol=1e-5, rtol=1e-5)
    acts = [part.steer(1.0) for part in d.of("dog")]
    plain, moved = (
        trace(model, ["a dog"], seeds=[0], steps=1, sites=d.sites, interventions=i) for i in ((), acts)
    )
    for site in d.sites:
        assert not torch.equal(plain[site], moved[site])
    alone = token_direction(model, POSITIVE, NEGATIVE, SUBJECTS, rows=["subject"])
    assert list(map(str, alone.sites)) == ["unet/in/text"]
    torch.testing.assert_close(alone.vector[0], d["unet/in/text"].vector[0])


def test_what_is_no_contrast_is_refused(tiny):
    for positive, negative, why in (
        ([], ["a cat"], r"positive is \[\]; a direction is between two classes"),
        (["a cat"], [], r"negative is \[\]; a direction is between two classes"),
        (["a cat"], ["a", "b"], "1 positive, 2 negative texts; they are pairs"),
        (["a cat"], ["a cat"], "are the same texts"),
    ):
        with pytest.raises(ValueError, match=why):
            token_direction(tiny, positive, negative, "cat")
    with pytest.raises(ValueError, match=r"'cat' stands 2 times .* say which: 'cat:1' or 'cat:2'"):
        token_direction(tiny, ["a red cat, a cat"], ["a cat"], "cat")
    with pytest.raises(LookupError, match="'dog' is not in the prompt"):
        token_direction(tiny, ["a red cat"], ["a cat"], "dog")
    with pytest.raises(ValueError, match="reads from left to right"):  # the attribute stands after the noun
        token_direction(tiny, ["a cat, red"], ["a cat, blue"], "cat", rows=["subject"])
    with pytest.raises(ValueError, match=r"reads no pooled text, and rows is \['pooled'\]"):
        token_direction(tiny, ["a red cat"], ["a blue cat"], "cat", rows=["pooled"])


def test_both_spaces_differ_by_the_noise_level(tiny):
    """Exact: x0 = (x - s eps) / a, so that differences of eps weigh by s / a, the published trap."""
    examples = Examples(["a cat"], ["a red cat"], ["a blue cat"])
    read = dict(zip(texts := ["a cat", "a red cat", "a blue cat"], tiny.encode(texts), strict=True))
    how = {"seeds": [0], "steps": 3, "guidance": None}
    x0, eps = (moments(tiny, examples, read, space=s, **how) for s in ("x0", "eps"))
    for i, step in enumerate(x0.steps):
        torch.testing.assert_close(x0.apart[i], -step.sigma * eps.apart[i], atol=1e-3, rtol=1e-3)
    assert len(x0.x) == 3 and x0.pair == (0, 0, 0)


@pytest.mark.parametrize("space", ["x0", "eps"])
def test_a_planted_delta_is_learned(tiny, space, monkeypatch):
    """The other texts are the neutral one with a vector added to, or taken from, the noun's row."""
    plain = tiny.encode(["a cat"])[0]
    v, at = torch.randn(16, generator=torch.Generator().manual_seed(0)), plain.find("cat")

    def moved(s):
        embeds = plain.embeds.clone()
        embeds[at] += s * v
        return replace(plain, embeds=embeds)

    read = {"none": plain, "up": moved(0.5), "down": moved(-0.5)}
    monkeypatch.setattr(learned, "encoded", lambda _, texts: {t: read[t] for t in texts})
    how = Learned(steps=25, draws=3, scales=1, scale=(0.5, 0.5), space=space, seeds=[0], sampling_steps=3)
    found, _ = learn(tiny, Examples(["none"], ["up"], ["down"]), ["cat"], how, ["subject"])
    (delta,) = found.values()
    assert torch.cosine_similarity(delta[0], v, 0) > 0.8
    again, _ = learn(tiny, Examples(["none"], ["up"], ["down"]), ["cat"], how, ["subject"])
    assert torch.equal(next(iter(again.values())), delta)  # to the bit


def test_a_fit_is_of_the_subject_unless_rows_are_named(tiny):
    how = Learned(steps=1, draws=1, scales=1, seeds=[0], sampling_steps=1)
    given = {"method": how, "neutral": ["a cat"]}
    d = token_direction(tiny, ["a red cat"], ["a blue cat"], "cat", **given)
    assert d.rows.kinds == ("subject",) and d.about["method"] == "learned"
    more = token_direction(tiny, ["a red cat"], ["a blue cat"], "cat", rows=["subject", "end"], **given)
    assert more.rows.kinds == ("subject", "end") and len(more.vector) == 2
    with pytest.raises(ValueError, match="draws is 0"):
        Learned(draws=0)


def test_published_deltas(tmp_path):
    model, source = xl(), torch.Generator().manual_seed(0)
    first, second = torch.randn(16, generator=source), torch.randn(16, generator=source)
    named = {"tokenwise_delta.oai_clip_vit_l": first, "tokenwise_delta.openclip_g": second}
    d = read_delta(model, {"delta": named})
    assert torch.equal(d.vector, torch.cat([first, second])[None]) and d.rows.kinds == ("subject",)
    save_file(named, tmp_path / "age.safetensors")
    assert torch.equal(read_delta(model, tmp_path / "age.safetensors").vector, d.vector)
    half = read_delta(model, {k: v for k, v in named.items() if k.endswith("vit_l")})
    assert torch.equal(half.vector[0, 16:], torch.zeros(16))  # the other encoder is left as it is
    torch.save({"delta": named}, tmp_path / "age.pt")
    with pytest.raises(ValueError, match="pickles can run code; give what torch.load"):
        read_delta(model, tmp_path / "age.pt")
    with pytest.raises(ValueError, match=r"has shape \(8,\), but .* reads 16 channels"):
        read_delta(model, {"tokenwise_delta.openclip_g": torch.ones(8)})
    with pytest.raises(ValueError, match=r"this one has \['other'\]"):
        read_delta(model, {"other": torch.ones(8)})
    with pytest.raises(FileNotFoundError):
        read_delta(model, tmp_path / "nothing.safetensors")


def test_random_directions_are_as_long_and_cosines_are_a_table(tiny):
    d = token_direction(tiny, POSITIVE, NEGATIVE, SUBJECTS)
    r = random_like(d, 1)
    torch.testing.assert_close(r.vector.norm(dim=1), d.vector.norm(dim=1))
    assert r.rows == d.rows and not torch.equal(r.vector, random_like(d, 2).vector)
    found = cosine_table({"red": d, "minus": -2 * d, "random": r})
    assert found.loc["red", "minus"] == pytest.approx(-1) and abs(found.loc["red", "random"]) < 0.6
    with pytest.raises(ValueError, match="name some"):
        cosine_table({})
