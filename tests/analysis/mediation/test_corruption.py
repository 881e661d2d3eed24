"""Corruption: noise where it should be and nowhere else, swapped words, and what is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.analysis.mediation.corruption import EMBEDDINGS, Noise, Swap, corrupt, encode_rows
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes.intervene import Intervention
from tests.models.families.test_families import opened


def made(model: Any, texts: list[str], subjects: list[str], how: Noise | Swap) -> Any:
    with torch.no_grad():
        return corrupt(model, model.encode(texts), subjects, how)


def added(corrupted: Any) -> torch.Tensor:
    noise: torch.Tensor = corrupted.added["text_encoder"][1]
    return noise


def table(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.pipe.text_encoder.get_input_embeddings().weight
    return weight.detach()


def test_noise_has_the_stated_size(tiny: Any) -> None:
    """3 standard deviations of the subjects' embeddings, taken from the embedding table itself."""
    subjects = ["cat", "dog"]
    ids = [tiny.pipe.tokenizer(s).input_ids[1] for s in subjects]
    unit = table(tiny)[ids].std()
    draws = made(tiny, ["a red cat", "a red dog"], subjects, Noise(sd=3, draws=400))
    for prompt in draws:
        noise = torch.stack([added(c) for c in prompt])
        # 6,400 draws: the standard error of their standard deviation is 0.9 %
        assert float(noise.std() / unit) == pytest.approx(3, rel=0.04)
        assert abs(float(noise.mean() / unit)) < 0.15


def test_noise_enters_at_the_subject_and_before_the_positions(tiny: Any) -> None:
    (draws,) = made(tiny, ["a red cat"], ["red"], Noise(draws=2))
    clean = table(tiny)[tiny.pipe.tokenizer(["a red cat"], padding="max_length").input_ids[0]]
    for c in draws:
        seen: list[torch.Tensor] = []
        look = Intervention(f"text_encoder/{EMBEDDINGS}", lambda x, _, seen=seen: seen.append(x.clone()))
        encode_rows(tiny, [(c.text, (*c.interventions(), look))])
        expected = clean.clone()
        expected[2] += added(c)[0]
        assert torch.equal(seen[0][0], expected)


def test_corruption_reaches_later_tokens_only(tiny: Any) -> None:
    """CLIP reads left to right: tokens before the subject stay as they were, to the bit."""
    (draws,) = made(tiny, ["a red cat"], ["red"], Noise(draws=3))
    encoded = encode_rows(tiny, [(c.text, c.interventions()) for c in draws])
    with torch.no_grad():
        clean = tiny.encode(["a red cat"])[0].embeds
    for prompt in encoded:
        assert torch.equal(prompt.embeds[:2], clean[:2])
        assert ((prompt.embeds[2:] - clean[2:]).abs().amax(-1) > 1e-3).all()


def test_no_noise_is_clean_to_the_bit(tiny: Any) -> None:
    (draws,) = made(tiny, ["a red cat"], ["cat"], Noise(sd=0, draws=2))
    encoded = encode_rows(tiny, [(c.text, c.interventions()) for c in draws])
    with torch.no_grad():
        clean = tiny.encode(["a red cat"])[0].embeds
    assert all(torch.equal(p.embeds, clean) for p in encoded)


@given(draws=st.integers(1, 5), more=st.integers(1, 4))
def test_draws_are_the_same_whatever_stands_beside_them(tiny: Any, draws: int, more: int) -> None:
    (few,) = made(tiny, ["a red cat"], ["red cat"], Noise(draws=draws))
    (many,) = made(tiny, ["a red cat"], ["red cat"], Noise(draws=draws + more))
    assert all(torch.equal(added(a), added(b)) for a, b in zip(few, many, strict=False))
    values = [added(c).flatten()[0].item() for c in many]
    assert len(set(values)) == len(values)
    assert added(many[0])[0].ne(added(many[0])[1]).all()


def test_other_seeds_give_other_noise(tiny: Any) -> None:
    a, b = (added(made(tiny, ["a cat"], ["cat"], Noise(draws=1, seed=s))[0][0]) for s in (0, 1))
    assert a.ne(b).all()


def test_noise_is_that_of_rome_unless_said_otherwise() -> None:
    assert Noise() == Noise(sd=3.0, draws=10, seed=0)


def test_a_draw_is_the_same_for_each_prompt_token_by_token(tiny: Any) -> None:
    long, short = made(tiny, ["a red cat", "a cat"], ["red cat", "cat"], Noise(draws=2))
    for a, b in zip(long, short, strict=True):
        assert len(added(a)) == 2 and torch.equal(added(a)[:1], added(b))


def test_each_text_encoder_has_noise_of_its_own() -> None:
    ((draw,),) = made(opened("sdxl"), ["a red cat"], ["cat"], Noise(draws=1))
    assert set(draw.added) == {"text_encoder", "text_encoder_2"}
    first, second = (noise[0] / noise[0].norm() for _, noise in draw.added.values())
    n = min(len(first), len(second))
    assert not torch.allclose(first[:n] / first[:n].norm(), second[:n] / second[:n].norm(), atol=0.1)


def test_rows_feel_their_own_interventions_only(tiny: Any) -> None:
    """More rows than one batch holds, each with noise of its own, equal one after another."""
    (draws,) = made(tiny, ["a red cat"], ["cat"], Noise(draws=70))
    rows = [(c.text, c.interventions()) for c in draws]
    together = encode_rows(tiny, rows)
    for i in (0, 1, 63, 64, 69):
        alone = encode_rows(tiny, [rows[i]])[0]
        assert torch.allclose(together[i].embeds, alone.embeds, atol=1e-6)


def test_swap_writes_other_words(tiny: Any) -> None:
    texts = ["a Red cat, red cats", "a cat, two cats"]
    swapped = made(tiny, texts, ["red", "cat"], Swap(r"d\1og"))
    assert [draws[0].text for draws in swapped] == [r"a d\1og cat, d\1og cats", r"a d\1og, two cats"]
    assert swapped[0][0].interventions() == () and len(swapped[0]) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Noise(sd=-1), "sd is -1"),
        (lambda: Noise(sd=float("nan")), "sd is nan"),
        (lambda: Noise(sd=float("inf")), "sd is inf"),
        (lambda: Noise(draws=0), "draws is 0; give at least 1"),
        (lambda: Swap("  "), r"like Swap\('cook'\)"),
    ],
)
def test_refuses_what_corrupts_nothing(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_subject_must_be_in_its_prompt(tiny: Any) -> None:
    with pytest.raises(LookupError, match="'cats' is not in the prompt 'a red cat'; did you mean 'cat'"):
        made(tiny, ["a red cat"], ["cats"], Noise())


@pytest.mark.parametrize("how", [Noise(), Swap("cat")])
def test_a_subject_must_be_known_to_the_tokenizer(tiny: Any, how: Noise | Swap) -> None:
    with pytest.raises(LookupError, match="does not know '猫': it reads '猫' in the prompt 'a 猫'"):
        made(tiny, ["a 猫"], ["猫"], how)


def test_words_of_scripts_without_spaces_are_swapped(tiny: Any) -> None:
    assert made(tiny, ["一只cat在跑"], ["cat"], Swap("dog"))[0][0].text == "一只dog在跑"


def test_a_model_without_text_has_no_subject() -> None:
    model = load(tiny_ddim())
    with pytest.raises(ValueError, match="DDIMPipeline has no text encoder"):
        made(model, [""], ["cat"], Noise())
