"""Every fault is one clear line, and leaves nothing half-written."""

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

from denoscope.models.synthetic.tiny import tiny_sd
from tests.denoscope.cli.calling import ABOUT, call, one_line


def test_faults_of_input_name_the_input_and_the_fix(folder, tmp_path):
    model = ["--model", folder]
    one_line(call("sites", "--model", "emojy"), 2, "emojy", "emoji")
    one_line(call("sites", "unet/mid.*/cros_attn.out", *model), 2, "cros_attn.out", "did you mean")
    one_line(call("generate", "a cat", "--steps", 0, *model), 2, "steps is 0", "at least 1")
    one_line(call("generate", "a cat", "--guidance", -1, *model), 2, "guidance is -1", "from 0 up")
    one_line(call("generate", "a cat", "--seeds", 0, *model), 2, "seeds is 0", "at least 1")
    one_line(call("generate", "x" * 60, *model), 2, "tokens", "shorten the prompt")
    one_line(call("generate", "a cat", "--seed", "7,x", *model), 2, "'7,x'", "--seed 7,8,9")
    one_line(
        call("investigate", "a red cat", "--about", "bird", "--change-to", "dog", *model),
        2,
        "bird",
        "words are a, red, cat",
    )
    run = ["investigate", "a red cat", "--about", "ct", "--change-to", "dog", *model]
    one_line(call(*run), 2, "did you mean 'cat'? Its words are a, red, cat")
    run = ["investigate", "a cat and a cat", "--about", "cat", "--change-to", "dog", *model]
    one_line(call(*run), 2, "exactly once", "'cat:1', 'cat:2'")
    one_line(call("locate", "a red cat", "--about", "cat", "--in", "vae", *model), 2, "'vae'", "unet")
    one_line(call("edit", "cat", " ", *model, "-o", tmp_path / "e"), 2, "empty")
    one_line(call("edit", "cat", "猫", *model, "-o", tmp_path / "e"), 2, "does not know '猫'")
    run = ["investigate", "a red cat", "--about", "cat", "--change-to", "猫", "-o", tmp_path / "run", *model]
    one_line(call(*run), 2, "does not know '猫'")
    assert not (tmp_path / "e").exists()


def test_a_hub_id_without_a_network_is_two_lines(monkeypatch):
    def away(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("denoscope.models.opening.hub.HfApi.model_info", away)
    done = call("sites", "--model", "owner/name", "--quiet")
    first, second = done.stderr.splitlines()
    assert done.exit_code == 2 and first.startswith("error: 'owner/name' is not on this machine")
    assert "no network" in first and "--model FOLDER" in second and not done.stdout


def test_an_edit_about_another_word_is_noticed(edited, folder):
    run = ["evaluate", edited, "a red cat", "--model", folder]
    one_line(call(*run, "--about", "red"), 2, "the edit is about cat -> dog, not about red -> ...")
    words = ["--about", "cat", "--change-to", "cook"]
    one_line(call(*run, *words), 2, "the edit is about cat -> dog, not about cat -> cook")
    one_line(call(*run), 2, "no judge ships")  # its own words: what was missing is a judge


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
    one_line(call("generate", "a cat", *model, "-o", tmp_path / "a"), 1, "seed-0.png: the disk is full")
    one_line(call("edit", "cat", "dog", "--model", folder, "-o", tmp_path / "b" / "e"), 1, "the disk is full")
    one_line(call("investigate", "a red cat", *ABOUT, *model, "-o", tmp_path / "c"), 1, "the disk is full")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "rename", full)
    one_line(call("trace", "a cat", *model, "-o", tmp_path / "d" / "t.zarr"), 1, "the disk is full")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()] and not list(tmp_path.rglob("*.zarr*"))


def test_nothing_is_overwritten(folder, tmp_path):
    model = ["--model", folder, "--steps", 1]
    (tmp_path / "t.zarr").mkdir()
    (tmp_path / "e").write_text("kept")
    one_line(call("edit", "cat", "dog", "--model", folder, "-o", tmp_path / "e"), 2, "exists", "--output")
    assert (tmp_path / "e").read_text() == "kept"
    assert call("edit", "cat", "dog", "--model", folder, "-o", tmp_path / "e", "--force").exit_code == 0
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


@pytest.mark.parametrize("kept", [False, True])
def test_going_on_is_promised_only_where_something_is_kept(kept, tmp_path, monkeypatch):
    def stop(_, output, **__):
        (output / "results.zarr.part").mkdir(parents=True)
        if kept:
            (output / "results.zarr.part" / "look").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("denoscope.investigation.investigate.investigated", stop)
    words = ["investigate", "a cat", "--about", "cat", "--change-to", "dog", "--output", tmp_path / "run"]
    told = call(*words)
    assert told.exit_code == 130 and "nothing half-written is left" in told.stderr
    assert ("goes on where it stopped" in " ".join(told.stderr.split())) == kept
    monkeypatch.setattr("denoscope.models.load.load", lambda *_: stop(None, tmp_path / "other"))
    told = call("sites")
    assert told.exit_code == 130 and "goes on" not in told.stderr


@pytest.mark.stress
def test_ctrl_c_stops_without_a_traceback_and_the_run_goes_on_later(tmp_path):
    words = ["a noto emoji of a woman firefighter", "--about", "firefighter", "--change-to", "cook"]
    command = [sys.executable, "-m", "denoscope", "investigate", *words, "--steps", "2", "--seeds", "1"]
    command += ["--anyway", "--output", str(tmp_path / "run")]  # two steps paint little
    # Ctrl-C is ignored by what a shell starts in the background; tests may have been
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    look, deadline = tmp_path / "run" / "results.zarr.part" / "look", time.monotonic() + 120
    while not look.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in said and "Traceback" not in said
    assert "The same command goes on where it stopped." in " ".join(said.split())
    assert look.exists() and not (tmp_path / "run" / "report.html").exists()
    assert not [p for p in tmp_path.rglob("*.part") if p.name not in ("results.zarr.part", "run.json.part")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and (tmp_path / "run" / "report.html").exists(), done.stderr


@pytest.mark.parametrize("lines", [0, 40])
def test_a_reader_that_has_seen_enough_is_no_fault(lines):
    command = [sys.executable, "-m", "denoscope", "investigate", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        for _ in range(lines):
            told.stdout.readline()
        told.stdout.close()
        assert told.stderr.read() == b"" and told.wait() == 1


def test_bugs_and_debug_show_where_and_our_own_errors_do_not(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from denoscope.cli.main import app
    from denoscope.models.errors import UsageError

    for error, debug, shown in (
        (UsageError("no such thing"), False, False),
        (UsageError("no such thing"), True, True),
        (FileNotFoundError(2, "no such file", "x"), False, False),
        (ValueError("torch says"), False, True),
        (RuntimeError("torch says"), False, True),
        (KeyError("x"), False, True),
        (OSError("a library says"), False, True),
        (OSError(errno.EIO, "input/output error", "x"), False, False),
    ):
        monkeypatch.setattr("denoscope.cli.commands.sites.open_model", _raising(error))
        result = CliRunner().invoke(app, [*(["--debug"] if debug else []), "sites"])
        assert (result.exception is error) == shown, error
        failed = shown or getattr(error, "errno", None) == errno.EIO
        assert result.exit_code == (1 if failed else 2)


def _raising(error):
    def fail(*_):
        raise error

    return fail
