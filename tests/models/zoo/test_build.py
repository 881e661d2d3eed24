"""Assembling and evaluating, by the command line, with random tiny parts."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, PixArtAlphaPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import denoscope
from denoscope.models import zoo
from denoscope.models.check import check_model
from denoscope.models.judges import Attributes, ImageTower
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.zoo import ZOO
from denoscope.models.zoo.training import __main__ as command
from denoscope.models.zoo.training import assemble
from denoscope.models.zoo.training.data import world
from denoscope.models.zoo.training.data.pictures import Pictures, Record, save_pictures
from denoscope.models.zoo.training.evaluate import card, generate
from denoscope.models.zoo.training.evaluate import evaluation as evaluate
from denoscope.models.zoo.training.fit import train_clip, train_judge
from denoscope.models.zoo.training.fit.denoisers import new_joint_transformer, new_plain_unet, new_transformer
from denoscope.models.zoo.training.parts import find_parts
from denoscope.models.zoo.training.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from planted import COLOURS, disc

EMOJI = RECIPES["emoji"].parts
KEYS = [("cook", "noto", "man", "dark")]


def call(*arguments):
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


def people() -> Pictures:
    """Enough combinations that some are held out."""
    grid = itertools.product(("cook", "judge"), world.STYLES, world.GENDERS, ("none", *world.TONES))
    records = tuple(
        Record(name=f"{g} {c}", concept=c, style=s, group="people-body", gender=g, skin=t)
        for c, s, g, t in grid
    )
    return Pictures(disc(COLOURS["cook"]).expand(len(records), 4, 64, 64).contiguous(), records)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A work folder as training leaves it."""
    folder = tmp_path_factory.mktemp("work")
    save_pictures(people(), folder / "data")
    pipe = tiny_sd()
    pipe.unet.save_pretrained(folder / "unet" / "denoiser")
    new_transformer(1, 2, 8, states=16).save_pretrained(folder / "transformer" / "denoiser")
    new_plain_unet((16, 32)).save_pretrained(folder / "people" / "denoiser")
    pipe.vae.save_pretrained(folder / "vae" / "vae")
    pipe.text_encoder.save_pretrained(folder / "clip" / "text_encoder")
    pipe.tokenizer.save_pretrained(folder / "clip" / "tokenizer")
    (folder / "clip" / "judge").mkdir()
    (folder / "judge").mkdir()
    save_file(
        ImageTower(**train_clip.SHAPE).state_dict(), folder / "clip" / "judge" / "clip_image.safetensors"
    )
    save_file({"weight": torch.randn(128, 16)}, folder / "clip" / "judge" / "clip_text.safetensors")
    judge = Attributes(**train_judge.SHAPE, labels=train_judge.LABELS)
    save_file(judge.state_dict(), folder / "judge" / "attributes.safetensors")
    (folder / "unet" / "run.json").write_text(json.dumps({"step": 1234, "seconds": 600.0}))
    (folder / "unet" / "log.csv").write_text("step,seconds,loss\n50,60,0.5\n100,120,0.4\n")
    return folder


@pytest.mark.stress
def test_assembles_a_plain_pipeline_in_half_precision_and_evaluates_it(work, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "STEPS", 2)
    out = tmp_path / "emoji"
    result = call("assemble", "--work", work, "--out", out)
    assert result.exit_code == 0, result.output
    pipe = StableDiffusionPipeline.from_pretrained(out, low_cpu_mem_usage=False)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert all(torch.isfinite(p).all() for p in part.parameters())
    with safe_open(out / "unet" / "diffusion_pytorch_model.safetensors", "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118
    described = json.loads((out / "world.json").read_text())
    assert described["held_out"] and described["templates"][0] == "a noto emoji of a {}"
    assert not [path.name for path in tmp_path.iterdir() if path.name != "emoji"]

    notes = tmp_path / "notes.md"
    notes.write_text("Trained for a test.")
    result = call("evaluate", "--work", work, "--out", out, "--n", 10, "--notes", notes)
    assert result.exit_code == 0, result.output
    text = (out / "card.md").read_text()
    figures = json.loads((out / "card.json").read_text())
    assert "Trained for a test." in text and "the step `denoiser`: 1,234 updates in 10 minutes" in text
    assert "nan" not in text.lower().split("## the world")[0]
    style = figures["scores"]["generated"]["style"]
    assert style["asked"] == figures["generated"] == 10
    assert style["interval"][0] <= style["value"] == style["right"] / 10 <= style["interval"][1]
    assert f"{100 * style['value']:.1f} %" in text
    assert figures["scores"]["generated, held-out combinations"]["style"]["asked"] == 2
    with Image.open(out / "samples.png") as samples, Image.open(out / "training.png") as training:
        assert samples.width == 10 * 128 and training.width > 100

    monkeypatch.setattr(generate, "_open", lambda folder, recipe: pytest.fail("generated again"))
    assert call("evaluate", "--work", work, "--out", out, "--n", 10, "--notes", notes).exit_code == 0


def test_a_transformer_on_the_same_parts_is_judged_by_the_other_models_judge(work, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "STEPS", 2)
    out = tmp_path / "emoji-dit"
    assert call("assemble", "--model", "emoji-dit", "--work", work, "--out", out).exit_code == 0
    pipe = PixArtAlphaPipeline.from_pretrained(out, low_cpu_mem_usage=False)
    assert all(torch.isfinite(p).all() for p in pipe.transformer.parameters())
    told = json.loads((out / "world.json").read_text())
    assert (told["name"], told["judge"]) == ("emoji-dit", "emoji")
    assert told["held_out"] and not (out / "judge").exists()
    result = call("evaluate", "--model", "emoji-dit", "--work", work, "--out", out, "--n", 10)
    assert result.exit_code == 0, result.output
    text = (out / "card.md").read_text()
    assert text.startswith("# emoji-dit: ") and "PixArtAlphaPipeline" in text
    assert json.loads((out / "card.json").read_text())["weights"] == generate.weights_hash(out)


@pytest.mark.filterwarnings("ignore")
def test_joint_attention_reads_in_the_pipeline_what_it_was_trained_on(work, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "STEPS", 2)
    recipe, out = RECIPES["emoji-mmdit"], tmp_path / "emoji-mmdit"
    parts = find_parts(work, None, recipe.frozen) | {"clip_text": tmp_path / "projection.safetensors"}
    save_file({"weight": torch.randn(16, 16)}, parts["clip_text"])
    network = new_joint_transformer(2, 2, 8, states=16)
    for parameter in network.parameters():  # a new one says nothing
        nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(tmp_path / "joint")
    assemble.assemble("emoji-mmdit", {**parts, "joint": tmp_path / "joint"}, out, KEYS)
    assert zoo.shared(out) == {"text_encoder_2": out / "text_encoder", "tokenizer_2": out / "tokenizer"}
    with safe_open(out / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118
    told = json.loads((out / "world.json").read_text())
    assert (told["text_tokens"], told["judge"]) == (24, "emoji")
    model = denoscope.load(out)
    assert model.t5_tokens == 24 and model.default_guidance == assemble.GUIDANCE
    check_model(model, ["a dog", "a red cat"], steps=2)
    text = recipe.inputs(parts).read(["a dog", ""])
    embeds, _, pooled, _ = model.pipe.encode_prompt(
        *[["a dog", ""]] * 3, do_classifier_free_guidance=False, max_sequence_length=32
    )
    assert torch.allclose(text.states, embeds, atol=2e-2) and torch.allclose(text.pooled, pooled, atol=5e-2)
    assert (
        not text.states[:, 32:].any() and text.states[:, :32].abs().mean() > 0.3
    )  # the rest is half precision
    painted = generate.generate(out, ["a dog", "a cat"], tmp_path / "kept")
    assert painted.shape == (2, 3, 64, 64)


@pytest.mark.filterwarnings("ignore")
def test_people_start_from_pure_noise(work, tmp_path):
    out = tmp_path / "emoji-people"
    assemble.assemble("emoji-people", find_parts(work, None, ["people"]), out, KEYS)
    model = denoscope.load(out)
    first = model.steps(4)[0]
    assert first.t == 999 and first.sigma == math.inf
    check_model(model, ["", ""], steps=3)


def test_people_are_assembled_counted_and_compared_with_what_they_were_trained_on(
    work, tmp_path, monkeypatch
):
    monkeypatch.setattr(generate, "STEPS", 2)
    out = tmp_path / "emoji-people"
    assert call("assemble", "--model", "emoji-people", "--work", work, "--out", out).exit_code == 0
    assert type(DiffusionPipeline.from_pretrained(out, low_cpu_mem_usage=False)).__name__ == "DDIMPipeline"
    result = call("evaluate", "--model", "emoji-people", "--work", work, "--out", out, "--n", 12)
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "card.json").read_text())
    for column, number in enumerate((12, 10, 12, 12)):
        for attribute in ("gender", "skin", "style"):
            shares = [s[column]["right"] for label, s in figures["shares"].items() if attribute in label]
            assert sum(shares) == number  # every picture counts once
    told = json.loads((out / "world.json").read_text())
    assert told["people"] == list(world.PEOPLE) and "monochrome" not in told["styles"]
    assert "held-out" in (out / "card.md").read_text() and (out / "samples.png").is_file()


def test_an_unknown_model_names_near_misses(work):
    result = call("assemble", "--model", "emoji-did", "--work", work)
    assert result.exit_code == 2 and "did you mean" in result.output and "'emoji-did'" in result.output


def test_parts_not_trained_come_from_a_base_with_their_labels(work, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    assemble.assemble("emoji", find_parts(work, None, EMOJI), base, KEYS)
    config = json.loads((base / "judge" / "config.json").read_text())
    config["labels"]["style"][0] = "other"
    (base / "judge" / "config.json").write_text(json.dumps(config))
    only_unet = tmp_path / "work"
    (only_unet / "unet").mkdir(parents=True)
    (only_unet / "unet" / "denoiser").symlink_to(work / "unet" / "denoiser")
    assemble.assemble("emoji", find_parts(only_unet, base, EMOJI), out, KEYS)
    assert json.loads((out / "judge" / "config.json").read_text())["labels"]["style"][0] == "other"
    assert not card.history(out)["vae"]
    assert assemble.held_out(people(), base) == KEYS  # the base may have seen whatever is not in its list
    assert set(assemble.held_out(people(), None)) == {r.key for r in world.split(people())[1].records}
    (tmp_path / "world.json").write_text("{}")  # of a model without text
    assert assemble.held_out(people(), tmp_path) == assemble.held_out(people(), None)
    assemble.assemble("emoji", find_parts(only_unet, out, EMOJI), out, KEYS)  # onto itself
    assert (out / "vae" / "config.json").is_file()


def test_parts_of_a_shipped_model_are_not_stored_again(tmp_path):
    names = RECIPES["emoji-dit"].parts
    out, again = tmp_path / "out", tmp_path / "again"
    assemble.assemble("emoji-dit", find_parts(tmp_path, ZOO["emoji-dit"], names), out, KEYS)
    assert zoo.shared(out) == zoo.shared(ZOO["emoji-dit"]) and zoo.shared(out)
    assert generate.weights_hash(out) == generate.weights_hash(ZOO["emoji-dit"])
    assert not (out / "vae").exists() and denoscope.load(out).decode(torch.zeros(1, 4, 16, 16)).any()
    parts = find_parts(tmp_path, out, names)  # from a base that shares them
    changed = tmp_path / "vae"
    shutil.copytree(parts["vae"], changed)
    weights = load_file(changed / "diffusion_pytorch_model.safetensors")
    weights["decoder.conv_out.bias"] += 1
    save_file(weights, changed / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    assemble.assemble("emoji-dit", {**parts, "vae": changed}, again, KEYS)
    assert set(zoo.shared(again)) == {"text_encoder", "tokenizer"} and (again / "vae").is_dir()
    assert generate.weights_hash(again) != generate.weights_hash(out)


def test_too_large_a_model_leaves_the_old_one(work, tmp_path, monkeypatch):
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "old").touch()
    monkeypatch.setattr(assemble, "LIMIT", 1000)
    with pytest.raises(ValueError, match="at most 1,000 can ship"):
        assemble.assemble("emoji", find_parts(work, None, EMOJI), tmp_path / "emoji", KEYS)
    assert [path.name for path in tmp_path.rglob("*")] == ["emoji", "old"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("assemble",), "run the step 'data' first"), (("evaluate",), "run the step 'data' first")],
)
def test_a_missing_step_is_named(arguments, expected, tmp_path):
    result = call(*arguments, "--work", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2 and expected in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("part", "step"),
    [("vae", "vae"), ("text_encoder", "clip"), ("people", "denoiser --model emoji-people")],
)
def test_a_missing_part_is_named(part, step, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"run the step '{step}' first, or name a model"):
        find_parts(tmp_path, None, [part])


def test_prompts_ask_for_every_concept_alike():
    drawn = evaluate.draw(people().records, 20)
    assert sum(r.concept == "cook" for r in drawn) == 10
    assert evaluate.draw(people().records, 20) == drawn
    assert evaluate.draw(people().records, 20, seed=1) != drawn


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 10 pictures, got 3"):
        evaluate.evaluate(tmp_path, nn.Identity(), people(), 3, tmp_path)


def test_help_lists_every_step_in_order():
    text = call("--help").output
    listed = text[text.index("Commands") :]
    steps = ("data", "vae", "clip", "judge", "denoiser", "assemble", "evaluate", "evaluation-data", "all")
    places = [listed.index(f"│ {name} ") for name in steps]
    assert places == sorted(places)


def test_curves_without_their_logs_leave_the_picture_that_ships(tmp_path, caplog):
    shipped = (ZOO["emoji"] / "training.png").read_bytes()
    command._curves(ZOO["emoji"], tmp_path)
    assert "training.png stays as it is: there is no" in caplog.text and "log.csv" in caplog.text
    assert (ZOO["emoji"] / "training.png").read_bytes() == shipped
