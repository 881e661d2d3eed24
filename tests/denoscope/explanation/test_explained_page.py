"""The page of words: self-contained, safe, moved by mouse and keys, fit for a phone."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from denoscope.explanation import Explanation
from denoscope.explanation.kinds import DEFAULT_MAP, KINDS, PARTS
from denoscope.explanation.page import MOST_SHADE, ORANGE, plain
from denoscope.models.errors import NotFoundError
from tests.denoscope.cli.calling import call, one_line
from tests.denoscope.report.browsing import Page, browse, contrast

EVIL = "<script>alert(1)</script> {{ 7 * 7 }}"
PROBE = f"<script>{Path(__file__).with_name('probe.js').read_text()}</script></body>"


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    return found.page(tmp_path_factory.mktemp("page") / "explanation.html").read_text()


@pytest.fixture(scope="module")
def shown(page):
    return json.loads(re.search(r'id="explanation">(.*?)</script>', page, re.S)[1])


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_nothing_is_loaded_from_anywhere(page):
    parsed = Page(page)
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert {link[1:] for link in parsed.links if link[0] == "#"} <= set(re.findall(r'id="([^"]+)"', page))
    assert "default-src 'none'" in page and "plotly" not in page.lower()


def test_the_page_holds_the_numbers_of_the_result(page, shown, found):
    data = found.data
    for kind in KINDS:
        assert numbers(shown["maps"][kind]) == pytest.approx(
            data["maps"].sel(kind=kind).values.ravel(), rel=1e-6
        )
    for part in PARTS:
        own = data["pair_map"].sel(part=part).values.ravel()
        assert numbers(shown["pairMaps"][part]) == pytest.approx(own, rel=1e-6)
    assert numbers(shown["attention"]) == pytest.approx(data["attention"].values.ravel(), rel=1e-6)
    frame = found.to_frame()
    assert shown["numbers"] == frame[["nats", "low", "high"]].values.tolist()
    text = " ".join(Page(page).words)
    for row in frame.itertuples():
        assert plain(row.nats) in text and f"{plain(row.low)} to {plain(row.high)}" in text
    cells = dict(re.findall(r'aria-label="(\w+) of red and cat: (\S+) nats"', page))
    parts = data["pair_nats"].isel(pair=0)
    assert cells == {p: plain(float(parts.sel(part=p))) for p in ("redundancy", "synergy")}


def test_every_kind_says_what_it_is_and_is_not(page):
    text = unescape(" ".join(Page(page).words))
    assert all(kind.says in text for kind in KINDS.values())


def test_the_map_that_comes_first_is_one_constant(found, shown, tmp_path):
    assert shown["first"] == DEFAULT_MAP
    other = found.page(tmp_path / "b.html", first="concept").read_text()
    assert '<option value="concept" selected>' in other and other.count(" selected>") == 1
    with pytest.raises(NotFoundError, match="did you mean 'concept'"):
        found.page(tmp_path / "c.html", first="concepts")
    assert not (tmp_path / "c.html").exists()


def evil(found):
    """The same numbers under a prompt and words that are out to run code."""
    data = found.data.assign_coords(word=["red", EVIL], pair=[f"red + {EVIL}"], second=("pair", [EVIL]))
    data = data.assign_coords(ends=("word", [5, 6 + len(EVIL)]))
    return Explanation(data.assign_attrs(prompt=f"a red {EVIL}", unread=[EVIL]))


def test_prompts_stay_text(found, tmp_path):
    text = evil(found).page(tmp_path / "evil.html").read_text()
    parsed = Page(text)
    assert parsed.tags.count("script") == 2 and EVIL in unescape("".join(parsed.words))


@pytest.mark.slow
def test_a_browser_follows_mouse_and_keys(page, found, tmp_path):
    seen, console = browse(page, PROBE, tmp_path, 1280)
    assert console == []
    frame = found.to_frame()
    strong = int(frame["nats"].abs().idxmax())
    first, other = frame["word"][strong], frame["word"][1 - strong]
    assert seen["start"]["told"].startswith(f"“{first}” tells {plain(frame['nats'][strong])} nats")
    for name, word in (("hovered", other), ("left", first), ("focused", other), ("escaped", first)):
        assert seen[name]["told"].startswith(f"“{word}” tells"), name
        assert seen[name]["changed"] == [False, True, True, True, True], name
    assert seen["pair"]["titles"] == ["The picture", "Redundancy", "Only “red”", "Only “cat”", "Synergy"]
    assert seen["pair"]["pressed"] == ["true", "true"] and seen["pair"]["told"] == seen["matrix"]["told"]
    assert seen["stepped"]["stop"] == "step 1 of 2"
    at = seen["stepped"]["titles"].index("Attention, step 1 of 2")
    assert [i for i, c in enumerate(seen["stepped"]["changed"]) if c] == [at]
    assert seen["placed"]["where"].startswith("row 4 of 8, column 6 of 8")
    assert seen["placed"]["ranked"] == found.at(3, 5)["word"].tolist()
    assert seen["moved"]["where"].startswith("row 5 of 8, column 6 of 8")
    lines = [line.split(",") for line in seen["files"]["words.csv"].replace('"', "").splitlines()]
    assert [float(line[1]) for line in lines[1:]] == pytest.approx(frame["nats"].tolist())
    assert seen["files"]["pairs.csv"].count("\n") == 7 and seen["files"]["maps.csv"].count("\n") == 64 * 16
    assert json.loads(seen["files"]["all.json"])["maps"]["concept"]


@pytest.mark.slow
def test_a_phone_shows_it_whole_and_an_evil_prompt_as_text(found, tmp_path):
    text = evil(found).page(tmp_path / "evil.html").read_text()
    seen, console = browse(text, PROBE, tmp_path, 360)
    assert console == [] and seen["scroll"] <= seen["width"] == 360 and seen["right"] <= 360
    assert seen["title"] == f"a red {EVIL} · denoscope"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_on_buttons_and_shades(page, scheme):
    colour = {n: re.findall(rf"--{n}: (#[0-9a-f]{{6}})", page)[scheme] for n in
              ("paper", "card", "ink", "soft", "accent", "wash")}  # fmt: skip
    card, orange = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (colour["card"], "#ff6000"))
    assert ",".join(map(str, orange)) == ORANGE
    for shade in (orange, np.array([37, 99, 235])):
        mixed = "#" + "".join(f"{round(v):02x}" for v in MOST_SHADE * shade + (1 - MOST_SHADE) * card)
        assert contrast(colour["ink"], mixed) >= 4.5
    for ink, ground in (("paper", "accent"), ("ink", "wash"), ("soft", "card")):
        assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)


def test_the_command_writes_the_page_and_all_numbers(folder, tmp_path):
    out = tmp_path / "out"
    run = ["explain", "a red cat", "--model", folder, "--word", "cat", "--steps", 1, "--seed", 3, "-o", out]
    told = call(*run, "--json")
    assert told.exit_code == 0, told.output
    written = json.loads(told.stdout)
    kept = Explanation.load(out / "results.zarr")
    assert written["words"][0]["nats"] == pytest.approx(kept.to_frame()["nats"][0]) and written["pairs"] == []
    assert (kept.data.attrs["seed"], kept.data.attrs["steps"]) == (3, 1)
    assert "explanation.html" in written["page"] and (out / "explanation.html").is_file()
    one_line(call(*run), 2, "exists; name a new one with --output")
    one_line(
        call("explain", "a red cat", "--model", folder, "--word", "dog", "-o", tmp_path / "x"),
        2,
        "is not in the prompt",
    )
