"""The command line: what it does, and that every fault is one clear line."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from denoscope import Trace
from denoscope.cli import app
from denoscope.models.synthetic.tiny import tiny_sd

ABOUT = ["--about", "cat", "--change-to", "dog"]


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def one_line(result, code, *parts):
    """The command failed, and its last words are a single line that says what was wrong."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.strip()]
    assert [line for line in said if line.startswith("error: ")] == said[-1:], result.stderr
    for part in parts:
        assert part in said[-1]


@pytest.fixture
def edited(folder, tmp_path):
    """An edit of the tiny model."""
    file = tmp_path / "edit.safetensors"
    assert call("edit", "cat", "dog", "--model", folder, "-o", file).exit_code == 0
    return file


# what it does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "demo", "investigate", "generate", "sites", "trace", "locate", "edit", "evaluate"]
)
def test_help_teaches(name):
    result = call(*([name] if name else []), "--help")
    assert result.exit_code == 0 and "denoscope" in result.output or name == "demo"


def test_sites_lists_addresses_and_shapes(folder):
    result = call("sites", "unet/mid.*/cross_attn.out", "--model", folder)
    assert result.exit_code == 0 and "unet/mid.attn.0.0/cross_attn.out" in result.output


def test_generate_writes_a_picture_for_each_seed_and_an_edit_changes_them(folder, edited, tmp_path):
    plain, changed = tmp_path / "plain", tmp_path / "changed"
    run = ["generate", "a red cat", "--model", folder, "--seeds", 2, "--steps", 2]
    assert call(*run, "-o", plain).exit_code == 0
    assert call(*run, "-o", changed, "--edit", edited).exit_code == 0
    names = ["seed-0.png", "seed-1.png"]
    assert sorted(p.name for p in plain.iterdir()) == names
    assert [(plain / n).read_bytes() == (changed / n).read_bytes() for n in names] == [False, False]


def test_trace_writes_a_labelled_store(folder, tmp_path):
    store = tmp_path / "out" / "trace.zarr"
    site = "unet/mid.attn.0.0/cross_attn.out"
    done = call("trace", "a red cat", "--sites", site, "--model", folder, "--steps", 2, "-o", store)
    assert done.exit_code == 0, done.output
    kept = Trace.load(store)
    assert kept[site].shape[:2] == (2, 1) and [p.text for p in kept.prompts] == ["a red cat"]


def test_locate_prints_places_and_saves_scores(folder, tmp_path):
    run = ["locate", "a red cat", "--about", "cat", "--model", folder, "--steps", 1, "--seeds", 1]
    for inside in ("text_encoder", "unet"):
        done = call(*run, "--in", inside, "-o", tmp_path / inside)
        assert done.exit_code == 0 and f"{inside}/" in done.output and (tmp_path / inside).is_dir()


def test_investigate_says_where_the_page_is(folder, tmp_path):
    run = ["investigate", "a red cat", *ABOUT, "--model", folder, "--steps", 1, "--seeds", 1]
    done = call(*run, "--output", tmp_path / "run")
    assert done.exit_code == 0 and str(tmp_path / "run" / "report.html") in done.output.replace("\n", "")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_evaluate_asks_the_judge_of_the_embedded_model(tmp_path):
    file, table = tmp_path / "e.safetensors", tmp_path / "e.csv"
    assert call("edit", "firefighter", "cook", "-o", file).exit_code == 0
    words = ["--about", "firefighter", "--change-to", "cook", "--steps", 2, "--seeds", 1, "-o", table]
    done = call("evaluate", file, "a noto emoji of a woman firefighter", *words)
    assert done.exit_code == 0 and "specificity" in done.output and table.read_text().startswith("kind,")


@pytest.mark.slow
def test_the_quick_demo_finds_a_cause_and_makes_a_cook(tmp_path):
    import json

    from denoscope.analysis.edit_evaluation.evaluate import EditEvaluation
    from denoscope.analysis.scores import load_store

    done = call("demo", "--quick", "--output", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    shown = EditEvaluation(load_store(tmp_path / "demo" / "results.zarr" / "effect"), {}).measures()["shown"]
    asked = shown.isel(evaluation_prompt=(shown["kind"] == "efficacy").values).mean(
        ("evaluation_prompt", "seed")
    )
    assert float(asked.sel(state="after")) > float(asked.sel(state="before"))
    seconds = json.loads((tmp_path / "demo" / "run.json").read_text())["seconds"]
    assert set(seconds) == {"look", "text", "denoiser", "effect"}


# faults -------------------------------------------------------------------------------------------------


def test_faults_of_input_name_the_input_and_the_fix(folder, tmp_path):
    model = ["--model", folder]
    one_line(call("sites", "--model", "emojy"), 2, "emojy", "emoji")
    one_line(call("sites", "unet/mid.*/cros_attn.out", *model), 2, "cros_attn.out", "did you mean")
    one_line(call("generate", "a cat", "--steps", 0, *model), 2, "steps is 0", "at least 1")
    one_line(call("generate", "a cat", "--guidance", -1, *model), 2, "guidance is -1", "from 0 up")
    one_line(call("generate", "a cat", "--seeds", 0, *model), 2, "seeds is 0", "at least 1")
    one_line(call("generate", "x" * 60, *model), 2, "tokens", "shorten the prompt")
    one_line(
        call("investigate", "a red cat", "--about", "bird", "--change-to", "dog", *model),
        2,
        "bird",
        "a red cat",
    )
    one_line(call("locate", "a red cat", "--about", "cat", "--in", "vae", *model), 2, "'vae'", "unet")
    one_line(call("edit", "cat", " ", *model, "-o", tmp_path / "e"), 2, "empty")
    assert not (tmp_path / "e").exists()


def test_weights_that_are_nan_truncated_or_pickled_are_refused(tmp_path):
    for name, harm in (("nan", nan), ("truncated", truncate), ("pickled", pickle)):
        tiny_sd().save_pretrained(tmp_path / name)
        harm(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors")
        one_line(call("sites", "--model", tmp_path / name), 2, "NaN" if name == "nan" else "could not open")


def nan(file):
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, file, {"format": "pt"})


def truncate(file):
    file.write_bytes(file.read_bytes()[:2000])


def pickle(file):
    torch.save({"x": torch.zeros(1)}, file.with_suffix(".bin"))
    file.unlink()


def test_an_edit_that_is_missing_truncated_pickled_or_for_other_weights_is_refused(edited, folder, tmp_path):
    run = ["generate", "a red cat", "--steps", 1, "--seeds", 1, "-o", tmp_path / "pictures", "--edit"]
    tiny_sd(seed=1).save_pretrained(tmp_path / "other")
    one_line(call(*run, edited, "--model", tmp_path / "other"), 2, "weight")
    one_line(call(*run, tmp_path / "none", "--model", folder), 2, "none")
    edited.write_bytes(edited.read_bytes()[:100])
    one_line(call(*run, edited, "--model", folder), 2, "edit.safetensors", "truncated")
    torch.save({"x": torch.zeros(1)}, edited)
    one_line(call(*run, edited, "--model", folder), 2, "pickled")
    assert not (tmp_path / "pictures").exists()


def test_a_read_only_place_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    one_line(
        call("generate", "a cat", "--steps", 1, "--seeds", 1, "--model", folder, "-o", below), 2, "--output"
    )
    run = ["investigate", "a red cat", *ABOUT, "--model", folder, "--steps", 1, "--seeds", 1, "-o", below]
    one_line(call(*run), 2, "--output")
    one_line(call("edit", "cat", "dog", "--model", folder, "-o", below), 2, "--output")


def test_a_full_disk_is_named_and_leaves_no_half_file(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    model = ["--model", folder, "--steps", 1, "--seeds", 1]
    monkeypatch.setattr(os, "fsync", full)
    one_line(call("generate", "a cat", *model, "-o", tmp_path / "a"), 2, "seed-0.png: the disk is full")
    one_line(call("edit", "cat", "dog", "--model", folder, "-o", tmp_path / "b" / "e"), 2, "the disk is full")
    one_line(call("investigate", "a red cat", *ABOUT, *model, "-o", tmp_path / "c"), 2, "the disk is full")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "rename", full)
    one_line(call("trace", "a cat", *model, "-o", tmp_path / "d" / "t.zarr"), 2, "the disk is full")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()] and not list(tmp_path.rglob("*.zarr*"))


def test_nothing_is_overwritten(folder, tmp_path):
    model = ["--model", folder, "--steps", 1]
    (tmp_path / "t.zarr").mkdir()
    one_line(call("trace", "a cat", *model, "-o", tmp_path / "t.zarr"), 2, "exists", "--output")
    one_line(
        call("locate", "a cat", "--about", "cat", *model, "-o", tmp_path / "t.zarr"), 2, "exists", "--output"
    )


def test_a_place_that_cannot_be_written_is_told_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("denoscope.models.load.load", None)
    (tmp_path / "file").write_text("kept")
    for command in (["generate", "a cat"], ["trace", "a cat"], ["locate", "a cat", "--about", "cat"]):
        call_ = call(*command, "--model", folder, "-o", tmp_path / "file" / "below")
        one_line(call_, 2, "a file stands where a folder is needed", "file")
    monkeypatch.setattr("os.access", lambda *_: False)
    one_line(call("generate", "a cat", "--model", folder, "-o", tmp_path / "new"), 2, "not allowed there")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    def bug(*_):
        raise KeyError("a bug")

    monkeypatch.setattr("denoscope.models.load.load", bug)
    assert isinstance(call("sites", "--model", folder).exception, KeyError)


@pytest.mark.slow
def test_ctrl_c_stops_without_a_traceback_and_the_run_goes_on_later(tmp_path):
    words = ["a noto emoji of a woman firefighter", "--about", "firefighter", "--change-to", "cook"]
    command = [sys.executable, "-m", "denoscope", "investigate", *words, "--steps", "2", "--seeds", "1"]
    command += ["--output", str(tmp_path / "run")]
    # Ctrl-C is ignored by what a shell starts in the background; tests may have been
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    look, deadline = tmp_path / "run" / "results.zarr.part" / "look", time.monotonic() + 120
    while not look.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in said and "Traceback" not in said
    assert look.exists() and not (tmp_path / "run" / "report.html").exists()
    assert not [p for p in tmp_path.rglob("*.part") if p.name not in ("results.zarr.part", "run.json.part")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and (tmp_path / "run" / "report.html").exists(), done.stderr
