"""Prompts know their words."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.places.account import AccountError
from denoscope.models.text.encoders import chosen, joined
from denoscope.models.text.prompt import Prompt, Words, places
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.models.families.test_families import opened


@pytest.mark.parametrize(
    ("text", "word", "spelt"),
    [
        ("a red cat", "cat", ["cat</w>"]),
        ("a red cat", "RED", ["red</w>"]),
        ("a red cat", "red cat", ["red</w>", "cat</w>"]),
        ("a zebra", "zebra", ["z", "e", "b", "r", "a</w>"]),
        ("cat and cat", "cat", ["cat</w>", "cat</w>"]),
    ],
)
def test_words_are_found_in_pieces(tiny, text, word, spelt):
    prompt = tiny.encode([text])[0]
    assert [prompt.tokens[i] for i in prompt.find(word)] == spelt


@pytest.mark.parametrize("word", ["ca", "cats", "", " ", "dog"])
def test_a_word_that_is_not_there_is_an_error(tiny, word):
    with pytest.raises(LookupError, match="is not in the prompt 'a red cat'"):
        tiny.encode(["a red cat"])[0].find(word)


def test_near_misses_are_named(tiny):
    with pytest.raises(LookupError, match="did you mean 'dog'"):
        tiny.encode(["a dog"])[0].find("dig")


@given(st.lists(st.sampled_from(["cat", "dog", "red", "zebra", "x"]), min_size=1, max_size=4))
def test_every_word_is_found_and_the_end_follows(tiny, words):
    prompt = tiny.encode([" ".join(words)])[0]
    found = {i for w in words for i in prompt.find(w)}
    assert found == set(range(1, prompt.end)) and prompt.tokens[prompt.end] == "<|endoftext|>"


def test_prompts_over_the_limit_are_refused(tiny):
    with pytest.raises(ValueError, match=r"has 42 tokens, .* reads 32: '(cat ?){10}' would be cut off"):
        tiny.encode(["cat " * 40])


def test_encoding_a_batch_equals_its_parts(tiny):
    together = tiny.encode(["a cat", "a red dog"])
    for one in together:
        torch.testing.assert_close(tiny.encode([one.text])[0].embeds, one.embeds)


def test_an_empty_prompt_ends_after_the_start(tiny):
    assert tiny.encode([""])[0].end == 1 and isinstance(tiny.encode([""])[0], Prompt)


@pytest.mark.parametrize(
    ("text", "words", "left"),
    [
        ("a red cat", "red", "a cat"),
        ("a Red cat, red dog", "red", "a cat, dog"),
        ("a cat, red, a dog", "red", "a cat, a dog"),
        ("red, a cat", "red", "a cat"),
        ("a cat, red", "red", "a cat"),
        ("a cook with a cookie", "cook", "a with a cookie"),
        ("a red cat", "red cat", "a"),
        ("red", "red", ""),
    ],
)
def test_words_are_left_out_in_their_place(tiny, text, words, left):
    assert tiny.encode([text])[0].without(words) == left


def test_words_that_are_not_there_cannot_be_left_out(tiny):
    with pytest.raises(LookupError, match="did you mean 'dog'"):
        tiny.encode(["a dog"])[0].without("dig")


# words alone ----------------------------------------------------------------------------------------------


def words_of(text, *pieces):
    """Words whose tokens are pieces of the text, one after another."""
    spans, at = [(0, 0)], 0
    for piece in pieces:
        spans.append((text.index(piece, at), text.index(piece, at) + len(piece)))
        at = spans[-1][1]
    return Words(text, ("<s>", *pieces, "</s>"), (*spans, (0, 0)))


@pytest.mark.parametrize(
    ("text", "pieces", "words", "found"),
    [
        ("red,cat", ("red", ",", "cat"), "red", [1]),
        ("red,cat", ("red", ",", "cat"), "cat", [3]),
        ("a dog", ("a", " dog"), "dog", [2]),
        ("a dog", ("a d", "og"), "dog", [1, 2]),
        ("c.t cat", ("c.t", "cat"), "c.t", [1]),
        ("bobcat cat", ("bob", "cat", "cat"), "cat", [3]),
        ("cat cats", ("cat", "cats"), " cat ", [1]),
    ],
)
def test_tokens_are_found_by_the_characters_they_stand_for(text, pieces, words, found):
    assert words_of(text, *pieces).find(words) == found
    assert words_of(text, *pieces).reads(words)


def test_signs_are_no_pattern():
    with pytest.raises(LookupError, match=r"'c\.t' is not in the prompt"):
        words_of("a cat", "a", "cat").find("c.t")


def test_words_and_the_end_of_a_text():
    words = words_of("a red-hot cat's tale", "a", "red-hot", "cat's")  # cut off there
    assert words.words == ("a", "red-hot", "cat's", "tale") and words.end == 4
    assert words.reads("a") and not words.reads("tale") and not words.reads("dog")
    with pytest.raises(LookupError, match=r"no token stands for 'tale': .* was cut off after 5 tokens"):
        words.find("tale")
    apart = Words("a cat", ("<s>", "a", "</s>", "<s>", "cat"), ((0, 0), (0, 1), (0, 0), (0, 0), (2, 5)))
    assert apart.end == 5 and Words("", ()).end == 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("red cat, red dog", "cat, dog"),
        ("a cat ,red, a dog", "a cat, a dog"),
        ("a cat, red , red, a dog", "a cat, a dog"),
        ("a  red\n cat", "a cat"),
        (", red, a cat", "a cat"),
        ("a cat , a red dog", "a cat, a dog"),
    ],
)
def test_spaces_and_commas_are_tidied(text, left):
    assert Words(text, ()).without("red") == left


def test_a_digest_is_of_all_that_the_denoiser_reads():
    def prompt(**more):
        given = {"text": "a", "tokens": ("a",), "embeds": torch.ones(1, 2), "pooled": torch.ones(3)}
        return Prompt(
            **{**given, "mask": torch.ones(1, dtype=torch.int64), "sizes": {"size": (8, 9)}, **more}
        )

    others = [
        {"embeds": torch.zeros(1, 2)},
        {"pooled": torch.zeros(3)},
        {"pooled": None},
        {"mask": torch.zeros(1, dtype=torch.int64)},
        {"sizes": {"size": (9, 8)}},
        {"sizes": {}},
        {"text": "b"},  # which some read
    ]
    assert prompt(tokens=("b",)).digest == prompt(sizes={"size": [8, 9]}).digest == prompt().digest
    assert len({prompt().digest, *(prompt(**more).digest for more in others)}) == 8


def test_each_encoder_has_words_of_its_own():
    one, two = words_of("a cat", "a", "cat"), words_of("a cat", "a cat")
    alone = Prompt(text="a cat", tokens=("a",), embeds=torch.ones(1, 2))
    both = Prompt(text="a cat", tokens=("a",), embeds=torch.ones(1, 2), read={"one": one, "two": two})
    assert alone.of("text_encoder") is alone and (both.of("one"), both.of("two")) == (one, two)
    with pytest.raises(LookupError, match="no text encoder 'tow' read this prompt; did you mean 'two'"):
        both.of("tow")


# texts longer than the encoder reads ----------------------------------------------------------------------

LONG = "cat " * 35 + "zebra dog " + "red " * 40 + "cook"


def by_hand(model, text, n):
    """Each chunk encoded alone by the text encoder, its states one after another."""
    tokenizer, room = model.pipe.tokenizer, model.pipe.tokenizer.model_max_length - 2
    ids, states = tokenizer(text, add_special_tokens=False).input_ids, []
    for i in range(n):
        own = ids[i * room : (i + 1) * room]
        row = [tokenizer.bos_token_id, *own] + [tokenizer.eos_token_id] * (room + 1 - len(own))
        with torch.no_grad():
            states.append(model.pipe.text_encoder(torch.tensor([row]))[0][0])
    return torch.cat(states)


def test_long_prompts_are_read_in_chunks(tiny):
    with torch.no_grad():
        long, short = tiny.encode([LONG, "a dog"], long_prompts="chunks")
    torch.testing.assert_close(long.embeds, by_hand(tiny, LONG, 3))
    torch.testing.assert_close(short.embeds, by_hand(tiny, "a dog", 3))
    assert [long.tokens[i] for i in long.find("zebra")] == ["z", "e", "b", "r", "a</w>"]
    assert len(long.find("red")) == 40 and len(long.tokens) == len(long.embeds) == 96
    assert long.find("cook") == [long.end - 1] and short.find("dog") == [2]


def test_a_word_is_found_across_the_border_of_chunks(tiny):
    prompt = tiny.encode(["cat " * 28 + "zebra"], long_prompts="chunks")[0]
    assert prompt.find("zebra") == [29, 30, 33, 34, 35]


def test_a_prompt_that_fits_is_read_as_ever(tiny):
    with torch.no_grad():
        one, plain = (tiny.encode(["a red cat"], **how)[0] for how in ({"long_prompts": "chunks"}, {}))
    assert torch.equal(one.embeds, plain.embeds) and one.tokens == plain.tokens and one.spans == plain.spans


def test_runs_read_all_their_texts_in_as_many_chunks(tiny):
    how = {"steps": 2, "guidance": 4.0}
    with torch.no_grad():
        *_, run = tiny.sample([LONG], seeds=[0], long_prompts="chunks", **how)
        prompts, negative = (tiny.encode([t], long_prompts=3) for t in (LONG, ""))
        *_, given = tiny.sample(prompts, seeds=[0], negative=negative, **how)
    assert torch.equal(run.latents, given.latents)
    runs = [SweepRun(LONG, 0), SweepRun("a dog", 1)]
    swept = sweep(tiny, runs, long_prompts="chunks", **how)
    torch.testing.assert_close(swept.latents[:1], run.latents, rtol=1e-3, atol=1e-3)


def test_long_prompts_that_cannot_be_are_refused(tiny):
    with pytest.raises(ValueError, match="takes no long_prompts"):
        list(opened("sdxl").sample(["a"], seeds=[0], steps=1, long_prompts="chunks"))
    with pytest.raises(ValueError, match="2 chunks of .* hold 60"):
        tiny.encode([LONG], long_prompts=2)
    with pytest.raises(ValueError, match="'error' or 'chunks' or a whole number"):
        tiny.encode(["a"], long_prompts="cut")
    with pytest.raises(ValueError, match="set long_prompts='chunks'"):
        list(tiny.sample(tiny.encode([LONG], long_prompts=3), seeds=[0], steps=1, guidance=4.0))


def test_sites_in_an_encoder_that_is_called_for_each_chunk_are_refused(tiny):
    site = "text_encoder/layer.0/resid.post"
    with pytest.raises(AccountError, match="reached 2 times"):
        trace(tiny, ["cat " * 40], seeds=[0], steps=1, sites=site, long_prompts="chunks")
    assert site in trace(tiny, ["cat"], seeds=[0], steps=1, sites=site, long_prompts="chunks", guidance=1.0)


# words that a tokenizer does not know, and scripts without spaces -----------------------------------------

UNSPACED = "一只猫在cat跑"


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux-dev", "pixart-alpha", "sana", "ldm"])
@pytest.mark.parametrize("text", ["猫", "a 猫 dog", "a dog猫", "猫狗 dog 猫"])
def test_a_word_that_no_tokenizer_knows_is_found_nowhere(name, text):
    with torch.no_grad():
        prompt = opened(name).encode([text])[0]
    with pytest.raises(LookupError, match=f"does not know '猫': it reads '猫' in the prompt '{text}' as it"):
        prompt.find("猫")
    assert not prompt.reads("猫") and prompt.reads("dog") == ("dog" in text)


def test_near_misses_of_unknown_words_are_named(tiny):
    with pytest.raises(LookupError, match="does not know 'é': it reads 'café' .* did you mean 'cafe'"):
        tiny.encode(["a café"])[0].find("café")


def test_one_of_several_encoders_may_know_a_word():
    """Then its tokens stand for it, and the other's for no word."""
    short = Words("a 猫", ("<s>", "a", "猫", "</s>"), ((0, 0), (0, 1), (2, 3), (0, 0)))
    long = Words("a 猫", ("a", "\u2581", "<unk>"), ((0, 1), (2, 3), (2, 3)), (1, 2))
    both = joined("a 猫", [short, long])
    assert both.find("猫") == [2] and both.find("a") == [1, 4] and both.unknown == (5, 6)
    assert chosen(both, [6, 1, 5]).unknown == (0, 2)


def test_the_name_of_the_unknown_token_may_be_written_out(tiny):
    """CLIP's is the end of the text, which everybody knows."""
    assert tiny.encode(["a <|endoftext|> cat"])[0].unknown == ()


def test_what_is_unknown_is_known_in_chunks_too(tiny):
    prompt = tiny.encode(["cat " * 30 + "猫 dog"], long_prompts="chunks")[0]
    assert prompt.find("dog") and not prompt.reads("猫")


@pytest.mark.parametrize(
    ("word", "found"), [("猫", [(2, 3)]), ("一只猫", [(0, 3)]), ("cat", [(4, 7)]), ("在cat", [(3, 7)])]
)
def test_words_of_scripts_without_spaces_are_found_where_they_stand(word, found):
    words = Words(UNSPACED, tuple(UNSPACED), tuple((i, i + 1) for i in range(len(UNSPACED))))
    assert words.find(word) == list(range(*found[0])) == words.at(*found[0])
    assert words.without(word) == UNSPACED.replace(word, "")


@pytest.mark.parametrize(
    ("text", "word"),
    [(UNSPACED, "ca"), (UNSPACED, "at"), (UNSPACED, "狗"), (UNSPACED, "猫cat"), ("a pressure-cook", "-cook")],
)
def test_borders_of_words_with_letters_count_there_too(text, word):
    with pytest.raises(LookupError, match="is not in the prompt"):
        Words(text, ()).find(word)


def test_texts_without_embeddings_have_digests_of_their_own():
    red, blue = (Prompt(text, (), embeds=torch.zeros(0, 0)) for text in ("red circle", "blue square"))
    again = Prompt("red circle", (), embeds=torch.zeros(0, 0))
    assert red.digest != blue.digest and red.digest == again.digest
    flat = Prompt("red circle", (), embeds=torch.zeros(2, 3))
    assert flat.digest != Prompt("red circle", (), embeds=torch.zeros(3, 2)).digest


def test_one_of_several_occurrences_is_found_by_its_number():
    spans = ((0, 0), (0, 1), (2, 5), (6, 9), (10, 11), (12, 15), (0, 0))
    words = Words("a cat and a cat", ("<s>", "a", "cat", "and", "a", "cat", "</s>"), spans)
    assert (words.find("cat"), words.find("cat:1"), words.find("Cat:2")) == ([2, 5], [2], [5])
    assert words.without("cat:2") == "a cat and a"
    for wrong in ("cat:3", "cat:0"):
        with pytest.raises(LookupError, match=f"'{wrong}' is not in the prompt 'a cat and a cat'"):
            words.find(wrong)
    assert places("x:2 and x and x", "x:2") == [(0, 3)]  # written like that, it is meant like that


def test_a_word_that_is_not_there_is_told_all_words():
    words = Words("a red cat and a dog", ())
    with pytest.raises(
        LookupError, match="did you mean 'cat' or 'a'\\? Its words are a, red, cat, and, dog$"
    ):
        words.find("cta")
    with pytest.raises(LookupError, match="not in the prompt 'a red cat and a dog'; its words are a, red"):
        words.find("xyz")


def test_a_prompt_shows_itself_in_a_line_without_its_numbers(tiny):
    (prompt,) = tiny.encode(["a red cat"])
    n, width = prompt.embeds.shape
    assert repr(prompt) == f"Prompt('a red cat': {n} tokens, embeds [{n}, {width}])"
    masked = replace(prompt, mask=torch.ones(n, dtype=torch.int64), pooled=torch.zeros(3))
    assert repr(masked).endswith(f"embeds [{n}, {width}], pooled [3], mask [{n}])")
