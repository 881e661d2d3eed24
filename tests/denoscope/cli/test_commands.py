"""What each command does."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from denoscope import Edit, Trace
from denoscope.analysis.scores import load_store
from denoscope.models.synthetic.tiny_families import tiny_sdxl
from tests.denoscope.cli.calling import ABOUT, call


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


def test_a_plan_of_locate_is_what_it_takes(folder, tmp_path):
    run = ["locate", "a red cat", "--about", "cat", "--model", folder, "--steps", 1, "--seeds", 1]
    plan = call("plan", *run, "--json", "--pace", 4)
    assert plan.exit_code == 0, plan.output
    told = json.loads(plan.stdout)
    call(*run, "-o", tmp_path / "scores")
    rows = load_store(tmp_path / "scores").attrs["rows"]
    assert told["rows"] == rows and told["seconds"] == rows / 4
    shown = call("plan", *run, "--in", "unet").output
    assert "rows a second" in shown and "denoiser rows" in shown


def test_locate_writes_what_it_prints_the_nearest_to_the_whole_effect_first(folder, tmp_path):
    run = ["locate", "a red cat", "--about", "cat", "--model", folder, "--steps", 1, "--seeds", 2]
    file = tmp_path / "places.csv"
    done = call(*run, "--table", file, "--json")
    found = json.loads(done.stdout)
    written = pd.read_csv(file)
    assert list(written.columns) == ["site", "token", "mean", "low", "high"]
    assert written["site"].tolist() == [p["site"] for p in found["places"]]
    assert written["mean"].tolist() == pytest.approx([p["mean"] for p in found["places"]])
    whole = 1 if found["unit"].startswith("share") else found["total"]["mean"]
    far = (written["mean"] - whole).abs()
    small = not found["unit"].startswith("share") and 2 * abs(whole) < written["mean"].abs().max()
    assert (-written["mean"] if small else far).is_monotonic_increasing
    assert found["site"] == written["site"][0]


def test_which_seeds_may_be_named(folder, tmp_path):
    run = ["generate", "a red cat", "--model", folder, "--steps", 1, "-o", tmp_path / "p"]
    assert json.loads(call(*run, "--seed", "7,9", "--json").stdout)["seeds"] == [7, 9]
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["seed-7.png", "seed-9.png"]


def test_quiet_prints_paths_alone_and_json_nothing_else(folder, tmp_path):
    run = ["trace", "a red cat", "--model", folder, "--steps", 1, "--sites", "unet/mid.*/*.out"]
    done = call(*run, "-o", tmp_path / "a.zarr", "--quiet")
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'a.zarr'}\n", "")
    told = json.loads(call(*run, "-o", tmp_path / "b.zarr", "--json", "--quiet").stdout)
    assert told["trace"] == str(tmp_path / "b.zarr") and len(told["sites"]) > 1
    sites = json.loads(call("sites", "unet/mid.*/cross_attn.out", "--model", folder, "--json").stdout)
    assert sites["sites"][0]["site"] == "unet/mid.attn.0.0/cross_attn.out"


def test_a_model_is_opened_in_the_format_that_is_named(folder):
    done = call("generate", "a red cat", "--model", folder, "--dtype", "float61")
    assert done.exit_code == 2 and "did you mean 'float16'" in done.stderr
    done = call("sites", "--model", folder, "--device", "nowhere")
    assert done.exit_code == 2 and "device 'nowhere' cannot be used here" in done.stderr


def test_an_edit_is_that_of_an_investigation(folder, finished, tmp_path):
    made = Edit.load(finished / "edit.safetensors")
    file = tmp_path / "e.safetensors"
    run = ["edit", "cat", "dog", "--model", folder, "-o", file, "--prompt", "a red cat"]
    assert call(*run, "--site", made.note["site"]).exit_code == 0
    assert Edit.load(file) == made and Edit.load(file).note["keep"] == made.note["keep"]


def test_an_edit_keeps_and_is_worded_as_it_is_told(folder, tmp_path):
    run = ["edit", "cat", "dog", "--model", folder, "-o", tmp_path / "e"]
    told = ["--keep", "", "--keep", "a red dog", "--template", "a {}"]
    assert call(*run, *told).exit_code == 0
    note = Edit.load(tmp_path / "e").note
    assert (note["keep"], note["templates"]) == (["", "a red dog"], ["a {}"])


def test_an_edit_says_what_the_encoder_knows_in_pieces_only(folder, tmp_path):
    done = call("edit", "cat", "dinosaur", "--model", folder, "-o", tmp_path / "e")
    said = " ".join(done.output.split())
    assert "knows “dinosaur” only in pieces (" in said and "knows “cat”" not in said


def test_investigate_says_where_the_page_is(folder, tmp_path):
    run = ["investigate", "a red cat", *ABOUT, "--model", folder, "--steps", 1, "--seeds", 1]
    done = call(*run, "--output", tmp_path / "run")
    assert done.exit_code == 0 and str(tmp_path / "run" / "report.html") in done.output.replace("\n", "")
    assert (tmp_path / "run" / "report.html").exists()


def test_edit_says_what_it_reaches_and_what_it_leaves(tmp_path):
    tiny_sdxl().save_pretrained(tmp_path / "model")
    run = ["edit", "cat", "dog", "--model", tmp_path / "model", "-o", tmp_path / "e.safetensors"]
    both = call(*run).output.replace("\n", " ")
    assert "text_encoder/layer.0/self_attn.out: reaches the denoiser by tokens " in both
    assert "text_encoder_2/layer.0/self_attn.out: reaches the denoiser by tokens and pooled" in both
    assert "left as before" not in both
    one = call(*run, "--force", "--site", "text_encoder_2/layer.0/mlp.out").output.replace("\n", " ")
    assert "by tokens and pooled" in one and "left as before: text_encoder" in one


@pytest.mark.slow
def test_evaluate_asks_the_judge_of_the_embedded_model(tmp_path):
    file, table = tmp_path / "e.safetensors", tmp_path / "e.csv"
    assert call("edit", "firefighter", "cook", "-o", file).exit_code == 0
    run = ["evaluate", file, "a noto emoji of a woman firefighter", "--steps", 2, "--seeds", 1, "-o", table]
    done = call(*run, "--table", tmp_path / "summary.csv")
    assert done.exit_code == 0 and table.read_text().startswith("kind,prompt,")
    assert re.search(r"specificity +shown +\d+% \(\d+% to \d+%\)", done.output), done.output
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert list(summary.columns) == ["kind", "measure", "state", "mean", "low", "high"]


@pytest.mark.stress
def test_robustness_tries_an_edit_and_writes_its_table(tmp_path):
    file, table = tmp_path / "e.safetensors", tmp_path / "sheet.csv"
    assert call("edit", "firefighter", "cook", "-o", file).exit_code == 0
    run = ["robustness", file, "a noto emoji of a woman firefighter", "--steps", 2, "--seeds", 1]
    done = call(*run, "--probe", "clean_embeddings", "--table", table, "-o", tmp_path / "sheet.zarr")
    assert done.exit_code == 0, done.output
    assert "clean_embeddings: prompt and empty text" in done.output
    assert pd.read_csv(table)["is_clean"].tolist() == [True, False, True, False]
    told = json.loads(call(*run, "--probe", "clean_embeddings", "--json").stdout)
    assert told["clean_rows_bring_it_back"] is True and len(told["trials"]) == 4
    wrong = call(*run, "--probe", "clean_embedings")
    assert wrong.exit_code == 2 and "did you mean 'clean_embeddings'" in wrong.output


def test_compare_takes_an_edit_a_model_and_refuses_what_is_neither(folder, tmp_path):
    edit = tmp_path / "edit.safetensors"
    assert call("edit", "cat", "dog", "--model", folder, "-o", edit).exit_code == 0
    run = ["--prompt", "a red cat", "--steps", 1, "--seeds", 1]
    said = call("compare", folder, edit, *run, "-o", tmp_path / "a", "--quiet")
    assert said.exit_code == 0 and said.output.strip() == str(tmp_path / "a" / "compared.html")
    made = json.loads(call("compare", folder, folder, *run, "-o", tmp_path / "b", "--json").stdout)
    assert made["weights"] == [] and made["sites"]
    odd = tmp_path / "odd.safetensors"
    odd.write_bytes(b"nothing")
    said = call("compare", folder, odd, *run, "-o", tmp_path / "c")
    assert said.exit_code == 2 and "is neither an edit" in said.output and not (tmp_path / "c").exists()
