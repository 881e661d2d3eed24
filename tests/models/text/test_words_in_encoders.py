"""Inside text encoders an intervention is told the words of its rows, as that encoder cuts them up."""

import pytest
import torch

from denoscope.models.run.context import When
from denoscope.probes.attach import attached
from denoscope.probes.intervene import Intervention, intervening
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, READING, opened

TEXTS = ("a red cat", "dogs and a cook")
WORDS = ("cat", "cook")


def kept(encoder, found, branch=None, rows=None):
    def keep(_, context):
        found.append((context.branch, context.part, context.prompts))

    return Intervention(f"{encoder}/layer.0/resid.post", keep, When(branch=branch, rows=rows))


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_words_are_found_where_the_encoder_reads_them(name, encoder):
    model, found = opened(name), []
    with torch.no_grad(), intervening(model, kept(encoder, found)):
        prompts = model.encode(TEXTS)
    ((branch, part, told),) = found
    assert (branch, part) == ("cond", encoder)
    for words, prompt, word in zip(told, prompts, WORDS, strict=True):
        own = prompt.of(encoder)
        assert (words.text, words.find(word)) == (prompt.text, own.find(word))
        assert words.tokens[-1] == own.tokens[-1] and len(words.tokens) >= len(own.tokens)


def zeroed(encoder):
    """The tokens of a word of each row's own."""

    def zero(x, context):
        new = x.clone()
        for row, words in enumerate(context.prompts):
            new[row, words.find(WORDS[TEXTS.index(words.text)])] = 0
        return new

    return Intervention(f"{encoder}/embed/tokens", zero)


@pytest.mark.parametrize(("name", "encoder"), READING)
def test_each_row_of_a_batch_is_changed_at_its_own_tokens(name, encoder):
    model, states = opened(name), []
    look = Intervention(f"{encoder}/embed/tokens", lambda x, _: states.append(x.clone()))
    with torch.no_grad(), intervening(model, look, zeroed(encoder), look):
        prompts = model.encode(TEXTS)
    for before, after, prompt, word in zip(*states, prompts, WORDS, strict=True):
        assert (before != after).any(-1).nonzero().flatten().tolist() == prompt.of(encoder).find(word)


def test_every_branch_of_a_run_is_told_its_own(tiny):
    found = []
    run = {"seeds": [0, 1], "steps": 1, "guidance": 4.0, "negative": "blue zebra"}
    trace(tiny, TEXTS, interventions=[kept("text_encoder", found)], **run)
    told = {branch: [w.text for w in words] for branch, _, words in found}
    assert told == {"cond": list(TEXTS), "uncond": ["blue zebra"] * 2}
    assert all(w.find("zebra") for branch, _, words in found if branch == "uncond" for w in words)


def test_encoded_beside_texts_the_rows_are_those_of_the_texts(tiny):
    found = []
    with torch.no_grad():
        ready = tiny.encode(["a dog"])[0]
    look = kept("text_encoder", found, "cond", rows=(1,))
    trace(tiny, [ready, TEXTS[1]], seeds=[0, 1], steps=1, interventions=[look])
    ((_, _, (words,)),) = found
    assert words.find("cook")


def test_one_chunk_is_told_the_words_it_holds(tiny):
    found = []
    with torch.no_grad(), intervening(tiny, kept("text_encoder", found)):
        tiny.encode(["a red cat"], long_prompts=1)
    assert found[0][2][0].find("cat") == [3]


LARGE = ("sana", "pixart-alpha-1024")  # their pipelines paint pictures of 1024 pixels
THEIRS = [n for n, f in FAMILIES.items() if f.encoders and n != "ldm"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.stress) if n in LARGE else n for n in THEIRS]
)
def test_in_a_users_own_call_they_are_told_too(name):
    model, found = opened(name), []
    encoder = FAMILIES[name].encoders[-1]
    more = {"max_sequence_length": 24} if name.startswith(("pixart", "flux", "sana")) else {}
    if name == "sana":
        more["complex_human_instruction"] = list(model.instruction)
    if name.startswith(("pixart", "sana")):
        more["use_resolution_binning"] = False
    with attached(model, kept(encoder, found, "cond")):
        model.pipe(list(TEXTS), num_inference_steps=2, num_images_per_prompt=2, output_type="latent", **more)
    with torch.no_grad():
        prompts = model.encode(TEXTS)
    ((_, _, told),) = found
    assert [w.find(x) for w, x in zip(told, WORDS, strict=True)] == [
        p.of(encoder).find(x) for p, x in zip(prompts, WORDS, strict=True)
    ]


def test_another_text_in_a_users_own_call_is_not_taken_for_the_prompt(tiny):
    found = []

    def read_another(pipe, *_):
        ids = pipe.tokenizer(["a big dog"], padding="max_length", return_tensors="pt").input_ids
        with run.assigning("cond"):
            pipe.text_encoder(ids)
        return {}

    with torch.no_grad(), attached(tiny, kept("text_encoder", found, "cond")) as run:
        tiny.pipe("a red cat", num_inference_steps=1, output_type="latent", callback_on_step_end=read_another)
    (_, _, (own,)), (_, _, (other,)) = found
    assert own.find("cat") and not other.tokens
