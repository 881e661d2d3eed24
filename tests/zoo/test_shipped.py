"""The shipped folder is a plain pipeline in half precision, small, and says what it holds."""

import json

import pytest
import torch
from safetensors import safe_open

from denoscope.models import zoo
from denoscope.models.zoo.build.generate import weights_hash

FOLDER = zoo.folder("emoji")


def test_size_and_format():
    files = [path for folder in zoo.ZOO.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 80_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
            assert kinds <= {"F16", "I64"}, path


def test_unknown_name_names_near_misses():
    with pytest.raises(LookupError, match="did you mean 'emoji'"):
        zoo.folder("emojis")


def test_world_lists_what_prompts_need():
    world = json.loads((FOLDER / "world.json").read_text())
    assert {"firefighter", "cook"} <= set(world["concepts"])
    assert world["guidance"] > 1
    assert "a noto emoji of a woman firefighter" in world["prompts"]


def test_the_card_is_of_these_weights_and_says_what_was_measured():
    figures = json.loads((FOLDER / "card.json").read_text())
    assert figures["weights"] == weights_hash(FOLDER)
    assert figures["generated"] >= 500
    text = (FOLDER / "card.md").read_text()
    for question, aim in figures["aims"].items():
        found = figures["scores"]["generated"][question]
        verdict = "met" if found["value"] >= aim else "not met"
        row = next(line for line in text.splitlines() if line.startswith(f"| {question} |"))
        assert f"{100 * found['value']:.1f} %" in row and row.endswith(f"{100 * aim:.0f} %: {verdict} |")
    assert (FOLDER / "samples.png").is_file()


@pytest.mark.filterwarnings("ignore")
def test_plain_diffusers_opens_and_samples_it():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    picture = pipe(
        "a flat emoji of a red heart", height=64, width=64, num_inference_steps=2, generator=generator
    )
    assert picture.images[0].size == (64, 64)


def test_no_path_of_another_machine_is_shipped():
    for path in FOLDER.rglob("*.json"):
        if path.name != "tokenizer.json":  # it holds slashes as tokens
            assert '"/' not in path.read_text(), path
