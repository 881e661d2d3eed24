"""``denoscope bench edits``."""

from __future__ import annotations

import json

import pytest

from denoscope.bench.reading import OWN
from denoscope.models.synthetic.tiny_judges import save_tiny_clip
from tests.denoscope.cli.calling import call, one_line


@pytest.fixture(scope="module")
def asked(folder, tmp_path_factory):
    """A tiny model, a random CLIP, and one concept."""
    place = tmp_path_factory.mktemp("asked")
    file = place / "own.csv"
    file.write_text(f"{','.join(OWN)}\nthings,cat,dog,a {{}},a red {{}},,hat\n")
    clip = save_tiny_clip(place / "clip")
    return [
        "--model",
        folder,
        "--judge",
        clip,
        "--concepts",
        file,
        "--steps",
        "1",
        "--seeds",
        "2",
        "--many",
        "",
    ]


def test_it_says_what_it_costs_and_writes_a_page(asked, tmp_path):
    out = tmp_path / "out"
    said = call("bench", "edits", *asked, "--methods", "quickfix,time", "-o", out)
    assert said.exit_code == 0, said.output
    assert "2 edits and at most" in said.stderr and "left to make" in said.stderr
    assert "quickfix" in said.stdout and "1 of 1" in said.stdout and "0 of 1" in said.stdout
    assert (out / "report.html").is_file() and (out / "results.json").is_file()

    again = call("bench", "edits", *asked, "--methods", "quickfix,time", "-o", out, "--json")
    found = json.loads(again.stdout)
    assert [c["reason"] is None for c in found["cells"]] == [True, False]
    assert {r["measure"] for r in found["summary"]} >= {"efficacy", "paraphrase", "neighbours", "drift"}
    assert "0 edits and at most 0 pictures" in again.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "quickfux"], "no method 'quickfux'"),
        (["--many", "ten"], "--many is 'ten'; write whole numbers"),
        (["--concepts", "none.csv"], "there is no file 'none.csv'"),
    ],
)
def test_what_is_refused_is_told_in_one_line(asked, tmp_path, more, said):
    one_line(call("bench", "edits", *asked, *more, "-o", tmp_path / "out"), 2, said)
    assert not (tmp_path / "out").exists()


def test_the_group_tells_its_commands():
    said = call("bench", "--help")
    assert said.exit_code == 0 and "edits" in said.output
