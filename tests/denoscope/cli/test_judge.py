"""``--judge``: who says what pictures show."""

from __future__ import annotations

import json

from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip
from tests.denoscope.cli.calling import ABOUT, call, one_line


def test_a_judge_is_named_on_the_command_line(edited, folder, tmp_path):
    clip, vit = save_tiny_clip(tmp_path / "clip"), save_tiny_classifier(tmp_path / "vit")
    run = ["a red cat", "--model", folder, "--steps", 1, "--seeds", 1]
    done = call("evaluate", edited, *run, "--judge", clip, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["summary"]
    assert {(r["kind"], r["measure"]) for r in rows} >= {("efficacy", "shown"), ("specificity", "shown")}
    found = call("locate", *run, "--about", "cat", "--judge", vit, "--json")
    assert found.exit_code == 0 and json.loads(found.stdout)["metric"].startswith("fit of the pictures")
    nowhere = ["--judge", "./nowhere", "-o", tmp_path / "run"]
    one_line(call("investigate", *run, *ABOUT, *nowhere), 2, "there is no file")
    one_line(call("locate", *run, "--about", "cat", "--judge", "clip"), 2, "there is no judge 'clip'")


def test_a_hub_id_without_a_network_is_two_lines(monkeypatch, folder):
    def away(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("denoscope.models.opening.hub.HfApi.model_info", away)
    done = call("locate", "a cat", "--about", "cat", "--model", folder, "--judge", "owner/name", "--quiet")
    first, second = done.stderr.splitlines()[-2:]
    assert done.exit_code == 2 and first.startswith("error: 'owner/name' is not on this machine")
    assert "--judge FOLDER" in second and "--model" not in second
