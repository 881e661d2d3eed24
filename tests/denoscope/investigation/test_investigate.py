"""The whole loop: what it writes, how it goes on after a stop, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from denoscope import Edit, load
from denoscope.analysis.mediation.result import Mediation
from denoscope.analysis.scores import load_store
from denoscope.investigation.case import Case
from denoscope.investigation.investigate import investigate
from denoscope.models.families.flux import Flux
from denoscope.models.synthetic.tiny_families import tiny_dit, tiny_flux, tiny_pixart_sigma, tiny_sdxl

STAGES = ("oracle", "look", "text", "denoiser", "changes", "effect")


def long(*values):
    """A case for ``make stress``; its like is in every run."""
    return pytest.param(*values, marks=pytest.mark.stress)


class Watcher:
    """Progress that remembers which stages did work, and can break off."""

    def __init__(self, stop_in="", error=KeyboardInterrupt):
        self.worked, self.stop_in, self.error = set(), stop_in, error

    def __call__(self, done, total, stage, /):
        if done > 0 and total > 1:
            self.worked.add(stage)
            if self.stop_in and self.stop_in in stage:
                raise self.error("stop")


def test_the_folder_holds_page_numbers_edit_and_settings(finished):
    names = {p.name for p in finished.iterdir()}
    assert names == {
        *("report.html", "results.zarr", "edit.safetensors", "run.json"),
        *("changes", "changes.parquet"),
    }
    whole = json.loads((finished / "run.json").read_text())
    assert whole["about"]["seeds"] == [0, 1] and set(whole["seconds"]) == set(STAGES)
    assert whole["about"]["versions"]["torch"] and len(whole["settings"]["weights"]) == 64
    tree = xr.open_datatree(finished / "results.zarr", engine="zarr", consolidated=False)
    assert set(tree.children) == set(STAGES)


def test_the_edit_is_the_one_that_was_checked_and_fits_the_model(finished, folder):
    model, edit = load(folder), Edit.load(finished / "edit.safetensors")
    data = load_store(finished / "results.zarr" / "effect")
    assert json.loads((finished / "run.json").read_text())["about"]["edit"] == edit.id
    with edit.applied(model):
        state = list(model.sample(["a red cat"], seeds=[0], steps=2))[-1]
        pixels = model.decode(state.latents.detach())[0].mul(255).round().permute(1, 2, 0)
    shown = data["after"].values[0]
    assert (
        np.abs(pixels.detach().numpy() - shown).max()
        <= 1
        < np.abs(pixels.detach().numpy() - data["before"].values[0]).max()
    )


def test_the_edit_is_made_where_restoring_comes_nearest_to_the_clean_run(finished):
    cause = Mediation(load_store(finished / "results.zarr" / "text"))
    site = Edit.load(finished / "edit.safetensors").note["site"]
    best = -abs(cause.indirect_effect.mean() - float(cause.total()["mean"])).min("token")
    assert site == str(best["site"].values[int(best.values.argmax())])


@pytest.mark.parametrize(
    "stage",
    [long("pictures"), "text encoder", long("denoiser"), long("checking")],
)
def test_a_stopped_run_goes_on_where_it_stopped_and_gives_the_same(stage, case, finished, tmp_path):
    first, second = Watcher(stage), Watcher()
    with pytest.raises(KeyboardInterrupt):
        investigate(case, tmp_path / "run", progress=first)
    assert not (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").rglob("*.part/*.part"))
    investigate(case, tmp_path / "run", progress=second)
    done = {s for s in first.worked if stage not in s}
    assert not done & second.worked and any(stage in s for s in second.worked)
    for name in STAGES:
        a, b = (load_store(p / "results.zarr" / name) for p in (finished, tmp_path / "run"))
        xr.testing.assert_identical(a, b)


def test_a_finished_run_is_not_made_again(case, finished, tmp_path):
    watcher = Watcher()
    before = (finished / "run.json").read_text()
    investigate(case, finished, command="denoscope investigate 'a red cat'", progress=watcher)
    assert (
        not watcher.worked
        and json.loads(before)["seconds"] == json.loads((finished / "run.json").read_text())["seconds"]
    )


@pytest.mark.stress
def test_a_damaged_stage_is_made_again(case, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        investigate(case, tmp_path, progress=Watcher("denoiser"))
    chunk = next(
        p for p in (tmp_path / "results.zarr.part" / "text" / "restored").iterdir() if p.name[0] != "."
    )
    chunk.write_bytes(b"damaged")
    again = Watcher()
    investigate(case, tmp_path, progress=again)
    assert {s for s in again.worked if "text" in s} and not {s for s in again.worked if "pictures" in s}


def test_other_settings_do_not_mix_with_a_run(case, finished):
    other = replace(case, steps=3)
    with pytest.raises(FileExistsError, match=r"a red cat.*--output"):
        investigate(other, finished)
    assert (finished / "report.html").exists()


@pytest.mark.stress
def test_fresh_takes_away_the_old_run_and_nothing_else(case, tmp_path):
    small = replace(case, seeds=1, steps=1)
    investigate(small, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    investigate(replace(small, prompt="a big cat"), tmp_path, fresh=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["prompt"] == "a big cat"


@pytest.mark.stress
def test_nothing_is_left_on_the_model_after_a_stop(case, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "denoscope.investigation.case.load", lambda _: tiny
    )  # the watch in tests/conftest.py looks at it
    for i, stage in enumerate(("text encoder", "denoiser", "checking")):
        with pytest.raises(KeyboardInterrupt):
            investigate(case, tmp_path / str(i), progress=Watcher(stage))
        with pytest.raises(OSError, match="stop"):
            investigate(case, tmp_path / str(i), progress=Watcher(stage, OSError))


BAD = [
    ({"about": "dog"}, LookupError, "'dog' is not in the prompt 'a red cat'"),
    ({"about": "ca"}, LookupError, "cat"),
    ({"about": " "}, LookupError, "not in the prompt"),
    ({"change_to": ""}, ValueError, "change_to is empty"),
    ({"change_to": "Cat"}, ValueError, "both 'cat'"),
    ({"prompt": "a cat and a cat"}, ValueError, "exactly once"),
    ({"prompt": "a {red} cat"}, ValueError, "braces"),
    ({"prompt": "cat " + "x" * 60}, ValueError, "32"),
    ({"change_to": "x" * 60}, ValueError, "32"),
    ({"seeds": 0}, ValueError, "seeds is 0"),
    ({"steps": 0}, ValueError, "steps is 0"),
    ({"steps": 5000}, ValueError, "5000"),
    ({"guidance": -1.0}, ValueError, "guidance is -1"),
    ({"guidance": float("nan")}, ValueError, "guidance is nan"),
    ({"model": "emojy"}, LookupError, "emoji"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[str(c) for c, _, _ in BAD])
def test_bad_input_is_refused_before_anything_is_written(change, error, message, case, tmp_path):
    with pytest.raises(error, match=message):
        investigate(replace(case, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_prompts_is_refused(monkeypatch, case, tmp_path):
    from denoscope.models.synthetic.tiny import tiny_ddim

    monkeypatch.setattr("denoscope.investigation.case.load", lambda _: load(tiny_ddim()))
    with pytest.raises(ValueError, match="has no text encoder"):
        investigate(case, tmp_path / "run")


@pytest.mark.parametrize(
    ("make", "denoiser"),
    [long(tiny_sdxl, "UNet"), (tiny_pixart_sigma, "transformer"), long(tiny_flux, "transformer")],
)
def test_other_families_are_investigated_by_the_same_command(make, denoiser, tmp_path):
    make().save_pretrained(tmp_path / "model")
    case = Case(
        "a red cat", "cat", "dog", str(tmp_path / "model"), seeds=1, steps=2, draws=1, analyses=["mediation"]
    )
    if make is tiny_flux:  # its pipeline paints 1024 pixels by default, and a tiny autoencoder halves them
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Flux, "native_size", property(lambda _: (16, 16)))
            page = investigate(case, tmp_path / "run").page
    else:
        page = investigate(case, tmp_path / "run").page
    assert f"In the {denoiser}, restoring" in page.read_text()
    edit = Edit.load(tmp_path / "run" / "edit.safetensors")
    assert edit.note["site"].startswith("text_encoder")
    left = "text encoder too, which the edit leaves as before"
    assert (left in page.read_text()) == bool(edit.note["unedited"]) == (make is not tiny_pixart_sigma)


@pytest.mark.parametrize(
    ("silent", "heard", "words"),
    [
        long("text_encoder", "text_encoder_2", "the second text encoder"),
        long("text_encoder_2", "text_encoder", "the text encoder"),
    ],
)
def test_the_encoder_that_carries_the_word_is_found(silent, heard, words, tmp_path, monkeypatch):
    """Planted: the last norm of one encoder is 0, so it says the same of every text."""
    monkeypatch.setattr(Flux, "native_size", property(lambda _: (16, 16)))
    pipe = tiny_flux()
    for name, parameter in getattr(pipe, silent).named_parameters():
        if "final_layer_norm.weight" in name:
            parameter.data.zero_()
    pipe.save_pretrained(tmp_path / "model")
    case = Case(
        "a red cat", "cat", "dog", str(tmp_path / "model"), seeds=1, steps=2, draws=1, analyses=["mediation"]
    )
    page = investigate(case, tmp_path / "run").page.read_text()
    found = load_store(tmp_path / "run" / "results.zarr" / "text")
    carried = json.loads(found.attrs["carried"])
    assert carried[heard] == pytest.approx(1, abs=1e-3) and carried[silent] == pytest.approx(0, abs=1e-3)
    assert {str(s).split("/")[0] for s in found["site"].values} == {heard}
    assert f"Restoring all that {words} says brings back 100% of the effect" in page
    assert Edit.load(tmp_path / "run" / "edit.safetensors").note["site"].startswith(f"{heard}/")


def test_a_model_of_classes_has_no_word_to_investigate(tmp_path):
    tiny_dit().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="has no text encoder, so no word of a prompt"):
        investigate(Case("cat", "cat", "dog", str(tmp_path / "model")), tmp_path / "run")
