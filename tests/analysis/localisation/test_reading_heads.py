"""What heads look for: by the formula, planted in one head, without a trace in the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import denoscope
from denoscope.analysis import Scores, head_relevance, locate
from denoscope.analysis.localisation import reading_heads
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3
from denoscope.probes.sweep.sweeping import SweepRun, sweep

Z = "unet/mid.attn.0.0/cross_attn.z"
OTHERS = ["dog", "bird", "red"]
HOW: dict[str, Any] = {"seeds": [0], "steps": 2, "guidance": 3.0}


def looked(model: Any, prompts: Any = ("a house",), subject: Any = "cat", **settings: Any) -> Scores:
    return head_relevance(
        model, list(prompts), subject, settings.pop("others", OTHERS), **{**HOW, **settings}
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that were traced."""
    made: list[Any] = []

    def spied(*given: Any, **settings: Any) -> Any:
        made.append(denoscope.trace(*given, **settings))
        return made[-1]

    monkeypatch.setattr(reading_heads, "trace", spied)
    return made


def test_is_the_log_odds_of_probabilities_over_the_words(tiny: Any) -> None:
    """The softmax of one query over the words' keys alone, by hand."""
    found = looked(tiny, seeds=[0, 3])
    site = Z.replace(".z", "")
    run = denoscope.trace(tiny, ["a house"] * 2, **{**HOW, "seeds": [0, 3]}, sites=f"{site}.q")
    keys = []
    for word in ("cat", *OTHERS):
        kept = denoscope.trace(tiny, [word], **HOW, sites=f"{site}.k")
        keys.append(kept[f"{site}.k"][0, 0][:, kept.prompts[0].find(word)].mean(1))
    q = run[f"{site}.q"]  # [step, seed, head, token, channel]
    logits = torch.einsum("tshqc,whc->wtshq", q, torch.stack(keys)) / q.shape[-1] ** 0.5
    p = logits.softmax(0)[0]
    want = ((p / (1 - p)).log() + np.log(len(OTHERS))).mean((0, 3)).T
    np.testing.assert_allclose(found.values.sel(site=Z)[:, 0], want, atol=1e-5)
    assert float(abs(want).max()) > 1e-4
    assert found.values.dims == ("site", "head", "prompt", "seed") and len(found.values["site"]) == 4


@pytest.mark.parametrize("planted", [(Z, 0), ("unet/up.0.attn.1.0/cross_attn.z", 1)])
def test_finds_the_head_that_was_made_to_look_for_the_word(planted: tuple[str, int]) -> None:
    model = denoscope.load(tiny_sd())
    site, head = planted
    words = ["cat", *OTHERS]
    texts = model.encode(words)
    e = torch.stack([t.embeds[t.find(w)].mean(0) for t, w in zip(texts, words, strict=True)]).detach()
    attention = [model.module(site.replace(".z", f".{part}_proj")) for part in "qk"]
    towards = torch.linalg.pinv(e) @ torch.eye(4)[0]  # 1 for the word, 0 for the others
    width = attention[0].out_features // 2
    own = slice(head * width, (head + 1) * width)
    with torch.no_grad():  # all its queries ask in one direction, in which only the word's key lies
        attention[0].weight[own] = 0
        attention[0].bias = nn.Parameter(torch.zeros(2 * width))
        attention[0].bias[own] = 3 / width**0.5
        attention[1].weight[own] = towards
    found = looked(model)
    assert found.best()["site"] == site and found.best()["head"] == str(head)
    want = 3 / width**0.5 * width / width**0.5  # the others' logits are 0
    assert float(found.mean().sel(site=site, head=head)) == pytest.approx(want, rel=1e-3)
    other = looked(model, subject="bird", others=["dog", "red"])
    assert float(other.mean().sel(site=site, head=head)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("family", [tiny_sd, tiny_pixart_alpha])
def test_the_picture_is_untouched_to_the_bit(family: Any, runs: list[Any]) -> None:
    model = denoscope.load(family())
    found = looked(model)
    plain = denoscope.trace(model, ["a house"], **HOW)
    assert torch.equal(runs[0].latents, plain.latents)
    steps = 2 * (2 if model.uses_cfg(3.0) else 1)
    assert found.values.attrs["rows"] == steps + 1 + len(OTHERS)


@pytest.mark.parametrize("family", [tiny_sd3, tiny_flux])
def test_in_joint_attention_words_ride_beside_the_prompt(family: Any, runs: list[Any]) -> None:
    model = denoscope.load(family())
    found = looked(model)
    plain = sweep(model, [SweepRun("a house", 0)], **{k: HOW[k] for k in ("steps", "guidance")}).latents
    torch.testing.assert_close(runs[0].latents[:1], plain, atol=1e-4, rtol=0)
    assert np.isfinite(found.values).all() and len(found.values["site"]) == len(model.reading_sites())
    assert len(runs[0].latents) == 1 + 1 + len(OTHERS)

    # the same by hand at the first block and step, where the text is not yet the picture's
    first = model.reading_sites()[0].address.removesuffix(".probs")
    once = looked(model, when=[0], sites=f"{first}.z")
    q = denoscope.trace(model, ["a house"], **HOW, sites=f"{first}.q")[f"{first}.q"][0, 0]
    kept = denoscope.trace(model, ["cat", *OTHERS], **{**HOW, "seeds": [0] * 4}, sites=f"{first}.k")
    picture, start = model.picture_and_text(model.reading_sites()[0], len(kept.prompts[0].tokens))
    keys = [k[:, [start + t for t in p.find(w)]].mean(1) for k, p, w in
            zip(kept[f"{first}.k"][0], kept.prompts, ["cat", *OTHERS], strict=True)]  # fmt: skip
    logits = torch.einsum("hqc,whc->whq", q[:, picture], torch.stack(keys)) / q.shape[-1] ** 0.5
    want = (logits[0] - logits[1:].logsumexp(0) + np.log(3)).mean(-1)
    np.testing.assert_allclose(once.values[0, :, 0, 0], want, atol=1e-4)


def test_a_word_against_itself_by_other_names_is_nothing_and_turns_its_sign(tiny: Any) -> None:
    one, two = looked(tiny, others=["dog"]), looked(tiny, subject="dog", others=["cat"])
    np.testing.assert_allclose(one.values, -two.values, atol=1e-6)
    assert float(abs(one.values).max()) > 1e-4


def test_locate_and_steps(tiny: Any) -> None:
    by_name = locate(tiny, ["a house"], "cat", method="head_relevance", others=OTHERS, **HOW)
    whole = looked(tiny)
    np.testing.assert_array_equal(by_name.values, whole.values)
    parts = [looked(tiny, when=[t]).values for t in (0, 1)]
    np.testing.assert_allclose((parts[0] + parts[1]) / 2, whole.values, atol=1e-6)


def test_what_cannot_be_looked_for_is_told(tiny: Any) -> None:
    def fail(match: str, kind: Any = ValueError, model: Any = tiny, **settings: Any) -> None:
        with pytest.raises(kind, match=match):
            looked(model, **settings)

    fail("others is empty", others=[])
    fail("hold 'cat' more than once", others=["dog", "cat"])
    fail("1 prompts but 2 subjects", subject=["cat", "dog"])
    fail("self_attn.z reads no text", sites=Z.replace("cross", "self"))
    fail("is not what single heads say", sites=Z.replace(".z", ".out"))
    fail("steps .* reach past the run", when=[7])
    fail("reads no words", LookupError, denoscope.load(tiny_ddpm()))
