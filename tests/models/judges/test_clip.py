"""CLIP and SigLIP as judges: what they say is what transformers' own model says."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers

from denoscope.models.judges import clip_judge
from denoscope.models.judges import opening as opens
from denoscope.models.opening import hub
from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip, save_tiny_siglip

TEXTS = ["a cat", "a red dog"]
ANIMALS = {"animal": ["a cat", "a dog", "a cook"]}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / request.param
    return {"clip": save_tiny_clip, "siglip": save_tiny_siglip}[request.param](path)


@pytest.fixture(scope="module")
def judge(folder):
    return clip_judge(folder, ANIMALS)


@pytest.fixture
def images():
    return torch.rand(5, 3, 20, 30, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_it_says_what_transformers_says(judge, folder, images):
    """The logits of the whole model, for the same tensors."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    read = judge.tokenizer(TEXTS, padding="max_length", max_length=32, return_tensors="pt")
    given = {"input_ids": read.input_ids, "pixel_values": judge.preparation(images, torch.zeros(1))}
    if model.config.model_type == "clip":
        given["attention_mask"] = read.attention_mask
    with torch.no_grad():
        logits = model(**given).logits_per_image
    bias = getattr(model, "logit_bias", torch.zeros(()))
    own = judge.similarity(images, TEXTS) * model.logit_scale.exp() + bias
    torch.testing.assert_close(own, logits, atol=1e-5, rtol=1e-5)


def test_score_is_the_diagonal_and_probability_the_softmax_with_its_own_scale(judge, images):
    scores = judge.clip_score(images[:2], TEXTS)
    torch.testing.assert_close(scores, judge.similarity(images[:2], TEXTS).diagonal())
    cosines = judge.similarity(images, ANIMALS["animal"])
    wanted = (judge.network.logit_scale.exp() * cosines).softmax(1)
    assert torch.equal(judge.probabilities(images, "animal"), wanted)
    assert torch.equal(judge.probability(images, "animal", "a dog"), wanted[:, 1])
    assert judge.labels("animal") == tuple(ANIMALS["animal"])


def test_pictures_are_compared_with_pictures(judge, images):
    alike = judge.similarity(images, images)
    torch.testing.assert_close(alike.diagonal(), torch.ones(5)) and torch.testing.assert_close(alike, alike.T)


def test_a_batch_equals_its_parts(judge, images, monkeypatch):
    whole = judge.similarity(images, TEXTS)
    parts = torch.cat([judge.similarity(x[None], TEXTS[:1]) for x in images])
    torch.testing.assert_close(whole[:, :1], parts)
    monkeypatch.setattr("denoscope.models.judges.preparing.BATCH", 2)
    torch.testing.assert_close(judge.similarity(images, TEXTS), whole)


def test_gradients_reach_the_picture_and_nothing_else(judge, images):
    with torch.inference_mode():
        judge.similarity(images, ["one more text"])  # what is kept of it must do under autograd
    x = images[:2].clone().requires_grad_()
    (judge.clip_score(x, ["one more text"] * 2) + judge.probability(x, "animal", "a cat")).sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert not any(p.requires_grad for p in judge.network.parameters())


def test_texts_are_read_once(folder, images, monkeypatch):
    judge, asked = clip_judge(folder), []
    plain = type(judge)._encode
    monkeypatch.setattr(type(judge), "_encode", lambda self, texts: asked.append(texts) or plain(self, texts))
    first = judge.similarity(images, [*TEXTS, "a cat"])
    again = judge.similarity(images, ["a dog", *TEXTS])
    assert asked == [TEXTS, ["a dog"]] and torch.equal(first[:, :2], again[:, 1:])


def test_it_opens_in_another_format_and_still_says_float32(folder, images):
    half = clip_judge(folder, dtype=torch.bfloat16).similarity(images, TEXTS)
    full = clip_judge(folder).similarity(images, TEXTS)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.05, rtol=0)


def test_provenance_names_it_and_its_weights(judge, folder, copied):
    about = judge.about
    assert about["name"] == str(folder) and about["kind"] in repr(judge) and len(about["weights"]) == 64
    assert clip_judge(copied).about["weights"] == about["weights"]
    other = clip_judge(copied)
    with torch.no_grad():
        next(other.network.parameters()).view(-1)[0] += 1
    assert other.about["weights"] != about["weights"]


def test_opening_moves_no_random_state(folder):
    before = torch.random.get_rng_state()
    clip_judge(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


# failures -----------------------------------------------------------------------------------------------


def test_a_text_that_would_be_cut_off_is_refused(judge, folder, images):
    with pytest.raises(ValueError, match=r"reads 32 tokens, and 'x{40}' has 42, .*cut off; shorten it"):
        judge.similarity(images, ["a cat", "x" * 40])
    with pytest.raises(ValueError, match="would be cut off"):
        clip_judge(folder, {"long": ["x" * 40]})


def test_what_cannot_be_asked_is_told(judge, folder, images):
    with pytest.raises(ValueError, match=r"no pictures to judge: their shape is \[0, 3, 20, 30\]"):
        judge.similarity(images[:0], TEXTS)
    with pytest.raises(ValueError, match="texts is empty"):
        judge.similarity(images, [])
    with pytest.raises(ValueError, match=r"got pictures \[5, 3, 20, 30\] and 2 texts"):
        judge.clip_score(images, TEXTS)
    with pytest.raises(LookupError, match="did you mean 'animal'"):
        judge.probabilities(images, "animals")
    with pytest.raises(LookupError, match="animal is never 'a dogg'; did you mean 'a dog'"):
        judge.probability(images, "animal", "a dogg")
    with pytest.raises(ValueError, match=r"was given no attributes, so 'animal'.*clip_judge\(name, "):
        clip_judge(folder).probability(images, "animal", "a dog")


def test_other_networks_are_named(tmp_path):
    vit = save_tiny_classifier(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"is a ViTForImageClassification; clip_judge takes CLIPModel and S"):
        clip_judge(vit)
    config = {"architectures": ["OwnModel"], "auto_map": {"AutoModel": "own.OwnModel"}, "model_type": "own"}
    (vit / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is a OwnModel; clip_judge takes"):
        clip_judge(vit)
    with pytest.raises(
        ValueError, match="class 'OwnModel', which transformers does not have; code is not run"
    ):
        opens.read_frozen(vit, "own", "cpu", torch.float32)


def test_a_processor_of_another_size_is_told(copied):
    file = copied / "preprocessor_config.json"
    told = json.loads(file.read_text())
    sides = {"height": 16, "width": 16}
    file.write_text(json.dumps({**told, "size": sides, "crop_size": sides}))
    with pytest.raises(ValueError, match=r"prepared to \(16, 16\), and the network reads \(24, 24\)"):
        clip_judge(copied)


def test_damaged_missing_and_pickled_weights_are_refused(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="could not open the judge .*truncated or damaged"):
        clip_judge(copied)
    weights.rename(copied / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could not open the judge .*has no weights in"):
        clip_judge(copied)


def test_a_missing_tokenizer_is_told(copied):
    for file in copied.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer; save it there too: tokenizer.save_pretrained\("):
        clip_judge(copied)
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="its tokenizer cannot be read"):
        clip_judge(copied)


def test_the_tokenizer_of_another_network_is_told(copied):
    tokenizer = transformers.AutoTokenizer.from_pretrained(copied)
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(copied)
    with pytest.raises(
        ValueError, match=r"has (\d+) tokens, and the network knows \d+; give the tokenizer of"
    ):
        clip_judge(copied)


def test_names_of_nothing_are_told(tmp_path):
    with pytest.raises(LookupError, match=r"no judge 'clip': no such folder, and no hub id \('owner/name'\)"):
        clip_judge("clip")
    with pytest.raises(LookupError, match="there is no file"):
        clip_judge(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"has no config.json; give a folder that save_pretrained\(\) wrote"):
        clip_judge(tmp_path)
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(ValueError, match="is a file; give the folder that it lies in"):
        clip_judge(tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="source is 3"):
        clip_judge(3)


def test_other_formats_and_devices_are_told(folder):
    with pytest.raises(ValueError, match=r"in torch.int8; dtype is one of torch.float32, torch.float16, "):
        clip_judge(folder, dtype=torch.int8)
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        clip_judge(folder, device="nowhere")


def test_without_a_network_a_hub_id_is_told_at_once(monkeypatch, folder):
    def away(*_, **__):
        raise ConnectionError("Name or service not known\nmore")

    monkeypatch.setattr(hub.HfApi, "model_info", away)
    with pytest.raises(ValueError, match=r"'a/b' is not on this machine.*\(Name or service") as told:
        clip_judge("a/b")
    assert "hf download a/b" in told.value.__notes__[0] and "--judge FOLDER" in told.value.__notes__[0]
    asked = []
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "there")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **o: asked.append(o) or str(folder))
    assert clip_judge("a/b").name == "a/b" and asked[0]["local_files_only"]
    assert not any("bin" in p or "py" in p for p in asked[0]["allow_patterns"])
    monkeypatch.setattr(hub, "snapshot_download", away)
    with pytest.raises(ValueError, match="^could not fetch 'a/b': Name or service not known$"):
        clip_judge("a/b")
