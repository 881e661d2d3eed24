"""What ``clip_skip`` and ``long_prompts`` cannot do: read again what is encoded, reach what is never read."""

import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.attach import attached
from denoscope.probes.intervene import Intervention, intervening, scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import Trace, trace
from tests.models.families.test_families import opened

RUN = {"seeds": [0], "steps": 1}
LONG = "cat " * 40
TEXT, LAST = "text_encoder/layer.0/resid.post", "text_encoder/layer.1/resid.post"
NORMED = "text_encoder/out/embeds"


@pytest.fixture(scope="module")
def sd():
    """One of our own: transformers leaves hooks where it was asked for the states of every layer."""
    return load(tiny_sd())


def sampled(model, prompts, **how):
    with torch.no_grad():
        return [*model.sample(prompts, **RUN, **how)][-1].latents


def encoded(model, text, **how):
    with torch.no_grad():
        return model.encode([text], **how)


WAYS = {
    "sample": sampled,
    "trace": lambda model, prompts, **how: trace(model, prompts, **RUN, **how).latents,
    "sweep": lambda model, prompts, **how: sweep(model, [SweepRun(prompts[0], 0)], steps=1, **how).latents,
}
ways = pytest.mark.parametrize("way", WAYS)


@ways
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_encoded_prompts_are_refused_where_layers_are_left_out(way, name):
    model = opened(name)
    prompts = encoded(model, "a red cat")
    fix = r"clip_skip is 1, but 'a red cat' was encoded with clip_skip None.*\(texts, clip_skip=1\)"
    with pytest.raises(ValueError, match=fix):
        WAYS[way](model, prompts, clip_skip=1)
    with pytest.raises(ValueError, match="clip_skip is 1"):
        sampled(model, ["a dog", *prompts][1:], clip_skip=1, guidance=4.0)
    same = WAYS[way](model, encoded(model, "a red cat", clip_skip=1), clip_skip=1)
    torch.testing.assert_close(same, WAYS[way](model, ["a red cat"], clip_skip=1))
    assert not torch.allclose(same, WAYS[way](model, prompts))


@ways
def test_encoded_prompts_are_refused_where_chunks_are_asked_for(way, sd):
    fix = r"long_prompts is 2, but 'a red cat' was encoded in 1 chunk,.*\(texts, long_prompts=2\)"
    with pytest.raises(ValueError, match=fix):
        WAYS[way](sd, encoded(sd, "a red cat"), long_prompts=2, guidance=1.0)
    two = encoded(sd, LONG, long_prompts=2)
    WAYS[way](sd, two, long_prompts=2, guidance=4.0)  # the negative text is read in two as well
    with pytest.raises(ValueError, match=r"long_prompts is 3, but 'cat .*' was encoded in 2 chunks"):
        WAYS[way](sd, two, long_prompts=3, guidance=4.0)


def test_an_encoded_negative_prompt_is_left_as_it_is(sd):
    negative = encoded(sd, "a dog")
    run = {"guidance": 4.0, "clip_skip": 1}
    assert torch.equal(
        sampled(sd, ["a cat"], negative=negative, **run), sampled(sd, ["a cat"], negative="a dog", **run)
    )
    with pytest.raises(ValueError, match="long_prompts is 2, but 'a dog' was encoded in 1 chunk"):
        sampled(sd, ["a cat"], negative=negative, guidance=4.0, long_prompts=2)


# what the denoiser never reads ----------------------------------------------------------------------------


@pytest.mark.parametrize("site", [LAST, NORMED, "text_encoder/layer.1/mlp.out"])
@pytest.mark.parametrize(("name", "skip"), [("sd", 1), ("sdxl", None)])
def test_interventions_behind_the_layer_that_is_read_are_refused(site, name, skip):
    model = opened(name)
    how = {} if skip is None else {"clip_skip": skip}
    fix = rf"{site} does not reach the denoiser: of text_encoder it reads layers 0 to 0.*{TEXT}"
    with pytest.raises(ValueError, match=fix):
        sampled(model, ["a cat"], interventions=[scale(site, 2.0)], **how)
    plain, changed = (sampled(model, ["a cat"], interventions=put, **how) for put in ([], [scale(TEXT, 2.0)]))
    assert not torch.equal(plain, changed)


def test_where_every_layer_is_read_nothing_is_refused(sd):
    plain = sampled(sd, ["a cat"])
    for how in ({}, {"clip_skip": 0}):
        for site in (LAST, NORMED):
            changed = sampled(sd, ["a cat"], interventions=[scale(site, 2.0)], **how)
            assert not torch.equal(changed, plain), (site, how)
    xl = opened("sdxl")  # the second encoder's last layer is read, pooled
    second = LAST.replace("encoder", "encoder_2")
    assert not torch.equal(sampled(xl, ["a cat"], interventions=[scale(second, 2.0)]), sampled(xl, ["a cat"]))


def test_negative_prompts_are_read_to_the_end(sd):
    how = {"guidance": 4.0, "negative": "a dog", "clip_skip": 1}
    change = scale(NORMED, 2.0, When(branch="uncond"))
    assert not torch.equal(
        sampled(sd, ["a cat"], interventions=[change], **how), sampled(sd, ["a cat"], **how)
    )


@pytest.mark.parametrize("skip", [0, 1])
def test_what_is_not_read_may_still_be_watched(sd, skip):
    run = trace(sd, ["a cat"], **RUN, sites=[LAST, NORMED, "unet/in/text"], clip_skip=skip)
    whole = trace(sd, ["a cat"], **RUN, sites=[LAST, NORMED])
    assert torch.equal(run[LAST], whole[LAST]) and torch.equal(run[NORMED], whole[NORMED])
    assert torch.equal(run["unet/in/text"].flatten(), run[NORMED].flatten()) == (skip == 0)


def test_in_a_users_own_call_they_are_refused_too(monkeypatch):
    model = load(tiny_sd())
    encoder = model.pipe.text_encoder
    if not hasattr(encoder, "text_model"):  # the pipeline asks for it, transformers 5 has it no more
        monkeypatch.setitem(vars(encoder), "text_model", encoder)
    how = {"num_inference_steps": 1, "output_type": "latent"}
    with attached(model.pipe, scale(LAST, 2.0)), pytest.raises(ValueError, match="does not reach"):
        model.pipe("a cat", clip_skip=1, **how)
    with attached(model.pipe, scale(LAST, 2.0, When(branch="uncond"))):  # read to the end
        model.pipe("a cat", clip_skip=1, guidance_scale=4.0, **how)


def test_a_change_that_changes_nothing_is_refused_by_what_it_returns(sd):
    put = Intervention(LAST, lambda x, _: x)
    with pytest.raises(ValueError, match="does not reach"), intervening(sd, put):
        sd.encode(["a cat"], clip_skip=1)


def test_a_saved_trace_still_knows_how_its_prompts_were_read(sd, tmp_path):
    trace(sd, ["a cat"], **RUN, clip_skip=1).save(tmp_path / "run")
    prompts = Trace.load(tmp_path / "run").prompts
    assert torch.equal(sampled(sd, prompts, clip_skip=1), sampled(sd, ["a cat"], clip_skip=1))
    with pytest.raises(ValueError, match="encoded with clip_skip 1"):
        sampled(sd, prompts, clip_skip=2)
