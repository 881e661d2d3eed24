"""The shipped folder is a plain pipeline in half precision, small, and says what it holds."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

import denoscope
from denoscope.models import zoo
from denoscope.models.check import check_model
from denoscope.models.judges import load_judge
from denoscope.models.zoo.training.assemble import LIMIT, describe
from denoscope.models.zoo.training.evaluate.generate import weights_hash

TOLD = ("emoji", "emoji-dit", "emoji-mmdit")
CALLS = {
    "emoji": {"height": 64, "width": 64},
    "emoji-dit": {"use_resolution_binning": False, "max_sequence_length": 24},  # as the card says
    "emoji-mmdit": {"height": 64, "width": 64, "max_sequence_length": 24},
}
WITHOUT_T5 = {"text_encoder_3": None, "tokenizer_3": None}
"""What diffusers has to be told, as the card says."""
every = pytest.mark.parametrize("name", zoo.ZOO)


def test_size_and_format():
    files = [path for folder in zoo.ZOO.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT == 95_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
            assert kinds <= {"F16", "I64"}, path


def test_unknown_name_names_near_misses():
    with pytest.raises(LookupError, match="did you mean 'emoji'"):
        zoo.folder("emojis")


@pytest.mark.parametrize("name", TOLD)
def test_world_lists_what_prompts_need(name):
    world = json.loads((zoo.folder(name) / "world.json").read_text())
    assert {"firefighter", "cook"} <= set(world["concepts"])
    assert world["guidance"] > 1
    assert "a noto emoji of a woman firefighter" in world["prompts"]


@every
def test_world_json_is_what_the_builder_writes(name):
    """Nothing outside this folder reads the training package, so the file has to say all of it."""
    told = json.loads((zoo.folder(name) / "world.json").read_text())
    written = json.loads(json.dumps(describe(name, told.get("held_out", ()))))
    assert {k: v for k, v in told.items() if k != "shared"} == written
    assert set(told["professions"]) <= set(told["people"]) <= set(told["concepts"])


@every
def test_the_card_is_of_these_weights(name):
    folder = zoo.folder(name)
    figures = json.loads((folder / "card.json").read_text())
    assert figures["weights"] == weights_hash(folder)
    assert figures["generated"] >= 500
    assert (folder / "card.md").read_text().startswith(f"# {name}: ")
    assert (folder / "samples.png").is_file()


@pytest.mark.parametrize("name", TOLD)
def test_the_card_says_what_was_measured(name):
    figures = json.loads((zoo.folder(name) / "card.json").read_text())
    text = (zoo.folder(name) / "card.md").read_text()
    for question, aim in figures["aims"].items():
        found = {**figures["scores"]["generated"], **figures["composed"].get("generated", {})}[question]
        verdict = "met" if found["value"] >= aim else "not met"
        row = next(line for line in text.splitlines() if line.startswith(f"| {question} |"))
        assert f"{100 * found['value']:.1f} %" in row and row.endswith(f"{100 * aim:.0f} %: {verdict} |")


def test_the_card_of_people_counts_every_picture_once():
    folder = zoo.folder("emoji-people")
    figures = json.loads((folder / "card.json").read_text())
    text = (folder / "card.md").read_text()
    for attribute in ("gender", "skin", "style"):
        shares = {k: v for k, v in figures["shares"].items() if k.startswith(attribute)}
        assert sum(made["right"] for made, *_ in shares.values()) == figures["generated"]
        for label, (made, *_) in shares.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
            assert f"| {100 * made['value']:.1f} %" in row


@every
@pytest.mark.filterwarnings("ignore")
def test_plain_diffusers_opens_and_samples_it(name, tmp_path):
    told = WITHOUT_T5 if name == "emoji-mmdit" else {}
    pipe = DiffusionPipeline.from_pretrained(zoo.export(name, tmp_path / name), dtype=torch.float32, **told)
    pipe.set_progress_bar_config(disable=True)
    given = {"prompt": "a flat emoji of a red heart", **CALLS[name]} if name in TOLD else {}
    picture = pipe(num_inference_steps=2, generator=torch.Generator().manual_seed(0), **given).images[0]
    assert picture.size == ((64, 64) if name in TOLD else (32, 32))


@every
@pytest.mark.filterwarnings("ignore")
def test_our_loop_is_the_pipelines_loop(name):
    model = denoscope.load(name)
    texts = ["a noto emoji of a cat", "a red heart"] if name in TOLD else ["", ""]
    check_model(model, texts, steps=2)


def test_the_transformers_read_what_the_unet_reads():
    """Text encoder, tokenizer and autoencoder are the same files, so what differs is the denoiser."""
    for part in ("text_encoder", "tokenizer", "vae"):
        first, second = (zoo.place(zoo.folder(name), part) for name in TOLD[:2])
        assert first == second == zoo.folder("emoji") / part and first.is_dir()
    assert zoo.place(zoo.folder("emoji-dit"), "transformer").parent == zoo.folder("emoji-dit")


def test_models_of_one_world_share_a_judge():
    assert all(load_judge(name) is load_judge("emoji") for name in zoo.ZOO)


@every
def test_no_path_of_another_machine_is_shipped(name):
    for path in zoo.folder(name).rglob("*.json"):
        if path.name != "tokenizer.json":  # it holds slashes as tokens
            assert '"/' not in path.read_text(), path
