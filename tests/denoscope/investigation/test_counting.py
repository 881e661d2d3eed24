"""What an investigation will take, told before it runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import denoscope
from denoscope.analysis import plan_study, trace_text
from denoscope.investigation.case import prepare
from denoscope.investigation.changes.brush import prompts_of
from denoscope.investigation.counting import BESIDE, OFFERED, expected
from denoscope.investigation.stages.attack import short
from denoscope.investigation.stages.information import LEVELS, PICTURES, information
from denoscope.investigation.stages.text_cause import text_call
from tests.denoscope.cli.calling import ABOUT, call


def test_stages_are_counted_as_they_run(case):
    setup = prepare(replace(case, prompt="a red cat on a mat", analyses=None))
    plan = expected(setup)
    run = 2 * 2 * (2 if setup.guidance > 1 else 1)  # two seeds, two steps
    assert plan.rows["asking outright"] == 2 * run and plan.rows["looking"] == run
    text = plan_study(trace_text, **text_call(setup, "text_encoder"))
    assert plan.rows["cause: text_encoder"] == text.rows
    n = sum(OFFERED[a] for a in ("mediation", "information", "directions")) + BESIDE
    assert plan.rows["trying the changes"] >= n * len(prompts_of(setup)) * run
    told = information(setup, lambda *_: None)
    assert told.attrs["rows"] == plan.rows["what words tell"] - PICTURES * run // 2
    assert LEVELS > 1 and plan.seconds == pytest.approx(sum(plan.rows.values()) / plan.pace)


@pytest.mark.parametrize(("steps", "fitted"), [(2, 3 * 2), (10, 30), (50, 30)])
def test_brief_runs_try_briefly_to_get_a_word_back(case, steps, fitted):
    assert short(prepare(replace(case, steps=steps))).steps == (fitted,)


def test_only_what_is_asked_for_is_counted(case):
    plan = expected(prepare(replace(case, analyses=("directions",))))
    assert set(plan.rows) == {"asking outright", "looking", "trying the changes"}


def test_the_command_tells_it_first_and_its_table_last(folder, tmp_path):
    run = ["investigate", "a red cat", *ABOUT, "--model", folder, "--steps", 1, "--seeds", 1]
    run += ["--with", "directions", "-o", tmp_path / "run"]
    said = call(*run)
    assert said.exit_code == 0 and "all, at most" in said.output
    assert "offered by" in said.output and "steering of the encoded text" in said.output
    again = call(*run, "--json")
    found = json.loads(again.stdout)
    assert {c["change"] for c in found["changes"]} >= {"nothing done", "steering of the encoded text"}
    assert found["best"] is None and "No judge" in found["why"] and "all, at most" not in again.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--remove", "--change-to", "dog"], "one goal"),
        ([], "give one of: --change-to WORD"),
        (["--balance", "gender"], "write two values"),
        (["--steer", "big", "--with", "features"], "denoscope features train"),
        (["--remove", "--with", "direction"], "did you mean 'directions'"),
    ],
)
def test_goals_that_do_not_fit_are_told_in_a_line(more, message, folder, tmp_path):
    said = call(
        "investigate", "a red cat", "--about", "cat", "--model", folder, *more, "-o", tmp_path / "run"
    )
    assert said.exit_code == 2 and message in " ".join(said.output.split())
    assert not (tmp_path / "run").exists()


def test_the_public_call_is_the_same_as_the_command(case, tmp_path):
    found = denoscope.investigate(replace(case, seeds=1, steps=1), tmp_path / "run", progress=lambda *_: None)
    assert found.best is None and found.table.names and "nobody can say" in found.table.why
