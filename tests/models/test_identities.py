"""The names tell the truth: residual streams add up, probabilities are probabilities."""

import pytest
import torch

from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes.trace import trace

BLOCK = "unet/mid.attn.0.0"


@pytest.fixture(scope="module")
def acts(tiny):
    return trace(tiny, ["a cat", "a dog"], seeds=[0, 1], steps=2, sites="**")


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("before", "added", "after"),
    [
        ("resid.pre", "self_attn.out", "resid.mid1"),
        ("resid.mid1", "cross_attn.out", "resid.mid2"),
        ("resid.mid2", "mlp.out", "resid.post"),
    ],
)
def test_the_unet_streams_add_up(acts, before, added, after):
    close(acts[f"{BLOCK}/{before}"] + acts[f"{BLOCK}/{added}"], acts[f"{BLOCK}/{after}"])


@pytest.mark.parametrize("layer", ["text_encoder/layer.0", "text_encoder/layer.1"])
def test_the_text_streams_add_up(acts, layer):
    close(acts[f"{layer}/resid.pre"] + acts[f"{layer}/self_attn.out"], acts[f"{layer}/resid.mid"])
    close(acts[f"{layer}/resid.mid"] + acts[f"{layer}/mlp.out"], acts[f"{layer}/resid.post"])


def test_a_wrong_identity_is_far_off(acts):
    wrong = acts[f"{BLOCK}/resid.pre"] + acts[f"{BLOCK}/cross_attn.out"] - acts[f"{BLOCK}/resid.mid1"]
    assert wrong.abs().max() > 0.05


def test_resnets_add_up(acts):
    close(
        acts["unet/mid.res.0/resid.pre"] + acts["unet/mid.res.0/resnet.out"],
        acts["unet/mid.res.0/resid.post"],
    )


def test_attention_out_holds_no_residual():
    model = load(tiny_ddim())
    acts = trace(model, seeds=[0], steps=1, sites="unet/mid.attn.0/*")
    stream = acts["unet/mid.attn.0/resid.pre"].flatten(3).transpose(2, 3)
    after = acts["unet/mid.attn.0/resid.post"].flatten(3).transpose(2, 3)
    close(stream + acts["unet/mid.attn.0/self_attn.out"], after)


def test_probabilities_sum_to_one_and_give_the_values(acts):
    found = [s for s in acts if s.kind.endswith(".probs")]
    assert len(found) >= 8
    for site in found:
        probs, stem = acts[site], str(site).removesuffix("probs")
        close(probs.sum(-1), torch.ones(probs.shape[:-1]))
        close(probs @ acts[stem + "v"], acts[stem + "z"])


def test_text_attention_is_causal(acts):
    probs = acts["text_encoder/layer.0/self_attn.probs"]
    assert probs.triu(1).abs().max() == 0 and probs.tril().min() >= 0


def test_what_the_unet_reads_is_what_the_text_encoder_says(acts):
    embeds = torch.stack([p.embeds for p in acts.prompts])
    assert torch.equal(acts["text_encoder/out/embeds"], embeds)
