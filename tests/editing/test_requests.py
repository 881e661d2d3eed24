"""Requests to rows: by hand, and as three other closed forms will use them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoscope import Edit
from denoscope.editing.requests import (
    PromptPair,
    aligned,
    kept_rows,
    prompt_pairs,
    rows,
    slots,
    texts_of,
)
from denoscope.editing.ridge import solve
from denoscope.models.text.prompt import Words
from denoscope.probes.text_states import TokenStates, layer_inputs, pooled_states, token_states
from tests.models.families.test_families import opened


def state(text: str, length: int = 6) -> TokenStates:
    """A text of one token a word; the state of token i is its position, and a number for the text."""
    words, spans, at = text.split(), [(0, 0)], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    spans += [(0, 0)] * (length - len(spans))
    tokens = ("<s>", *words, *["</s>"] * (length - 1 - len(words)))
    values = torch.tensor([[i, len(text)] for i in range(length)], dtype=torch.float32)
    return TokenStates(Words(text, tokens, tuple(spans)), values)


def test_every_request_goes_into_every_template() -> None:
    pairs = prompt_pairs({"cat": "dog", "elk": "a cat"}, ["{}", "one {} here"])
    assert pairs == [
        PromptPair("cat", "dog", "cat", "dog", 0),
        PromptPair("one cat here", "one dog here", "cat", "dog", 4),
        PromptPair("elk", "a cat", "elk", "a cat", 0),
        PromptPair("one elk here", "one a cat here", "elk", "a cat", 4),
    ]
    assert prompt_pairs({" cat ": "dog"}, ["a {}"]) == prompt_pairs({"cat": "dog"}, ["a {}"])
    assert texts_of(pairs[::2]) == ["cat", "dog", "elk", "a cat"]


def test_the_wordings_are_those_of_the_papers() -> None:
    pairs = prompt_pairs({"cat": "dog"})
    assert [p.source for p in pairs] == ["cat", "a photo of cat", "an image of cat", "a picture of cat"]


def test_rows_start_at_the_words_last_token_and_are_lined_up_by_hand() -> None:
    pair = prompt_pairs({"red cat": "dog"}, ["a {}"])[0]
    states = {t: state(t) for t in (pair.source, pair.target)}
    keys, targets = rows(states, [pair], "subject")
    assert keys.tolist() == [[3, 9]] and targets.tolist() == [[2, 5]]
    keys, targets = rows(states, [pair, pair], "subject+end")
    assert keys.tolist() == [[3, 9], [4, 9], [5, 9]] * 2
    assert targets.tolist() == [[2, 5], [3, 5], [4, 5]] * 2  # the target's rows are cut ...
    back = PromptPair(pair.target, pair.source, pair.meant, pair.said, pair.at)
    _, targets = rows(states, [back], "subject+end")
    assert targets.tolist() == [[3, 9], [4, 9], [5, 9], [5, 9]]  # ... or its last one is repeated
    assert keys.dtype == targets.dtype == torch.float64


@pytest.mark.parametrize(
    ("template", "said", "meant", "source", "target"),
    [
        ("{} or cat", "cat", "dog", 1, 1),  # the same word behind the slot ...
        ("cat or {}", "cat", "dog", 3, 3),  # ... before it ...
        ("{} or cat", "elk", "cat", 1, 1),  # ... or on the target's side
        ("a {} or elk", "red cat", "elk", 3, 2),
    ],
)
def test_the_slot_counts_and_not_the_same_word_elsewhere(
    template: str, said: str, meant: str, source: int, target: int
) -> None:
    (pair,) = prompt_pairs({said: meant}, [template])
    texts = state(pair.source).words, state(pair.target).words
    assert slots(*texts, pair, "subject") == ([source], [target])
    assert slots(*texts, pair, "subject+end") == (list(range(source, 6)), list(range(target, 6)))
    assert aligned([3, 4], [1]) == [1, 1]


def cut(text: str, *pieces: str) -> Words:
    """A text in pieces, between a start and an end."""
    spans, at = [(0, 0)], 0
    for piece in pieces:
        at = text.index(piece, at)
        spans.append((at, at + len(piece)))
        at += len(piece)
    return Words(text, ("<s>", *pieces, "</s>"), (*spans, (0, 0)))


@pytest.mark.parametrize(
    ("template", "said", "meant", "source", "target", "rows"),
    [
        ("two {}s", "dog", "cat", ["two", "dogs"], ["two", "cats"], ([2], [2])),
        ("two {}s", "dog", "cat", ["two", "dogs"], ["two", "cat", "s"], ([2], [3])),
        ("two {}s", "dog", "cat", ["two", "dog", "s"], ["two", "cats"], ([3], [2])),
        ("two {}s", "dog", "cat", ["two", "dog", "s"], ["two", "cat", "s"], ([2], [2])),
        ("a {}fighter", "fire", "water", ["a", "firef", "ighter"], ["a", "wat", "erfi", "ghter"], ([3], [4])),
        ("super{}", "man", "dog", ["superm", "an"], ["super", "dog"], ([2], [2])),
        ("一只{}在跑", "猫", "狗", ["一只", "猫", "在", "跑"], ["一", "只", "狗", "在", "跑"], ([2], [3])),
        ("一只{}在跑", "猫", "狗", ["一只", "猫在", "跑"], ["一只", "狗", "在", "跑"], ([2], [3])),
    ],
)
def test_a_slot_inside_a_word_is_lined_up_where_both_sides_end_at_one_letter(
    template: str, said: str, meant: str, source: list[str], target: list[str], rows: Any
) -> None:
    (pair,) = prompt_pairs({said: meant}, [template])
    assert slots(cut(pair.source, *source), cut(pair.target, *target), pair, "subject") == rows


def test_a_slot_that_is_cut_off_or_not_known_is_refused() -> None:
    (pair,) = prompt_pairs({"cat": "elk"}, ["a {}"])
    known, short = cut("a elk", "a", "elk"), cut("a cat", "a")
    strange = Words("a cat", ("<s>", "a", "<unk>"), ((0, 0), (0, 1), (2, 5)), (2,))
    with pytest.raises(LookupError, match="no token stands for 'cat': .* was cut off after 3 tokens"):
        slots(short, known, pair, "subject")
    with pytest.raises(LookupError, match="the tokenizer does not know 'cat': it reads 'cat' in the prompt"):
        slots(strange, known, pair, "subject")
    (pair,) = prompt_pairs({"elk": "cat"}, ["a {}"])
    with pytest.raises(LookupError, match="the tokenizer does not know 'cat'"):
        slots(known, strange, pair, "subject")


def test_kept_texts_give_all_their_rows() -> None:
    assert kept_rows({}, []) is None
    kept = kept_rows({t: state(t) for t in ("a", "b c")}, ["b c", "a"])
    assert kept is not None and kept.shape == (12, 2)
    assert kept[:, 1].tolist() == [3.0] * 6 + [1.0] * 6 and kept.dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prompt_pairs({}), ValueError, "requests is {}; write"),
        (lambda: prompt_pairs(["cat"]), TypeError, r"requests is \['cat'\]; it is a mapping"),  # type: ignore[arg-type]
        (lambda: prompt_pairs({" ": "cat"}), ValueError, "' ': 'cat' says nothing"),
        (
            lambda: prompt_pairs({"red  cat": "dog", "Red cat": "elk"}),
            ValueError,
            "'Red cat' is asked to mean 'dog' and 'elk'",
        ),
        (lambda: prompt_pairs({"cat": "dog"}, "a {}"), TypeError, "templates is the single string 'a {}'"),
        (lambda: prompt_pairs({"cat": "dog"}, ["a cat"]), ValueError, "exactly one {}"),
        (lambda: prompt_pairs({"cat": "dog"}, []), ValueError, r"templates is \[\]; give a list"),
        (lambda: prompt_pairs({"cat": "dog"}, ["{} or {}"]), ValueError, "exactly one {}"),
        (
            lambda: slots(*[state("a cat").words] * 2, PromptPair("a cat", "a cat", "cat", "cat", 2), "all"),  # type: ignore[arg-type]
            ValueError,
            "tokens is 'all'; it is 'subject'",
        ),
    ],
)
def test_bad_requests_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# as other methods will use them ---------------------------------------------------------------------------


def read(model: Any, text: str, word: str) -> Tensor:
    """The state of a word as the denoiser's text layers read it."""
    with torch.no_grad():
        prompt = model.encode([text])[0]
    state: Tensor = prompt.embeds[prompt.find(word)[-1]].double()
    return state


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_all_text_layers_of_a_denoiser_read_one_word_as_another(name: str) -> None:
    """UCE and TIME: all keys and values of the cross-attentions, from one factorisation."""
    model, pairs = opened(name), prompt_pairs({"cat": "dog"}, ["a {}"])
    keys, targets = rows(token_states(model, texts_of(pairs)), pairs, "subject")
    layers = {}
    for kind in ("k_proj", "v_proj"):
        for site in model.sites(f"unet/**/cross_attn.{kind}"):
            layers |= {n: w.detach().double() for n, w in model.weights(site).items()}
    deltas = solve(keys, {n: (targets - keys) @ w.T for n, w in layers.items()}, 1e-9)
    with torch.no_grad():
        cat, dog = read(model, "a cat", "cat"), read(model, "a dog", "dog")
        with Edit.of(model, deltas).applied(model):
            for n, w in layers.items():
                now = model.parameter(n).double()
                torch.testing.assert_close(now @ cat, w @ dog, rtol=0, atol=1e-5)
                assert float((w @ dog - w @ cat).abs().max()) > 1e-3
    assert len(layers) >= 4


def test_a_mean_key_over_templates_meets_its_value_exactly(tiny: Any) -> None:
    """ROME: one key, the mean over wordings at the word's last token; one value, from anywhere."""
    site = "text_encoder/layer.1/mlp.out"
    pairs = prompt_pairs({"cat": "dog"}, ["a {}", "a red {}", "{} here"])
    states = layer_inputs(tiny, texts_of(pairs), site)
    key = rows(states, pairs, "subject")[0].mean(0, keepdim=True)
    ((name, weight),) = ((n, w) for n, w in tiny.weights(site).items() if n.endswith("weight"))
    value = torch.randn(1, len(weight), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deltas = solve(key, {name: value - key @ weight.detach().double().T}, 0.0)
    with Edit.of(tiny, deltas).applied(tiny):
        torch.testing.assert_close(
            tiny.parameter(name).detach().double() @ key[0], value[0], atol=1e-5, rtol=0
        )


def test_the_pooled_text_is_a_space_of_its_own() -> None:
    """UCE for FLUX edits the layer that reads the pooled text as well."""
    model, pairs = opened("flux-dev"), prompt_pairs({"cat": "dog"}, ["a {}"])
    pooled, name = (
        pooled_states(model, texts_of(pairs)),
        "transformer.time_text_embed.text_embedder.linear_1.weight",
    )
    key, target = (pooled[text][None].double() for text in ("a cat", "a dog"))
    weight = model.parameter(name).detach().double()
    with Edit.of(model, solve(key, {name: (target - key) @ weight.T}, 1e-9)).applied(model):
        now = model.parameter(name).detach().double()
        torch.testing.assert_close(now @ key[0], weight @ target[0], rtol=0, atol=1e-5)
    assert float((weight @ (target - key)[0]).abs().max()) > 1e-3
