"""The page: self-contained, safe, quiet in a browser, and fit for a phone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from denoscope.investigation.investigate import investigate
from denoscope.models.images import to_array
from denoscope.report import page as page_module
from tests.denoscope.report.browsing import Page, browse, contrast

EVIL = "<script>alert(1)</script> a cat"
PROBE = """<script>
const wait = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  const right = [...document.querySelectorAll("main *, header *, footer *")]
    .filter(e => !e.closest("svg"))
    .map(e => e.getBoundingClientRect().right);
  const drawn = [...document.querySelectorAll(".plot")]
    .map(e => e.querySelectorAll("svg.main-svg").length > 0);
  const plots = [...document.querySelectorAll(".plot")], slider = document.querySelector(".step input");
  const shown = () => document.querySelector(".plot[data-figure=strip] image").getAttribute("href");
  const first = shown();
  slider.value = slider.max;
  slider.dispatchEvent(new Event("input"));
  const inside = (e, what) => [...e.parentElement.querySelectorAll(what)];
  const tools = plots.map(e => inside(e, ".tools button").length);
  const texts = e => inside(e, ".data td").map(c => c.textContent);
  const cells = Object.fromEntries(plots.map(e => [e.dataset.figure, texts(e)]));
  const scroll = document.documentElement.scrollWidth;
  setTimeout(() => parent.postMessage(JSON.stringify({ width: innerWidth, scroll,
    right: Math.max(...right), drawn, title: document.title, tools, cells, moved: shown() !== first,
    told: document.querySelector(".step output").textContent }), "*"), 300);
}, 100);
</script></body>"""


@pytest.fixture(scope="module")
def page(finished):
    return (finished / "report.html").read_text()


def test_nothing_is_loaded_from_anywhere(page):
    parsed = Page(page)
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    places = set(re.findall(r'<section id="([^"]+)"', page))
    assert {
        link[1:] for link in parsed.links if link.startswith("#")
    } == places  # the contents name every section
    assert "default-src 'none'" in page and page.count("plotly.js v") == 1


def test_figures_carry_the_runs_numbers(page, finished):
    from denoscope.analysis.scores import load_store

    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])
    assert {"hero", "strip", "words", "grid-generality", "grid-specificity", "moved"} <= set(figures)
    assert len(figures["strip"]["frames"]) == 2
    moved = load_store(finished / "results.zarr" / "effect")
    part = moved["moved"].isel(evaluation_prompt=(moved["kind"] == "efficacy").values)
    assert figures["moved"]["data"][0]["x"][0] == pytest.approx(float(part.mean()))


def test_every_place_of_a_figure_is_filled(page):
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])
    assert set(re.findall(r'data-figure="([^"]+)"', page)) == set(figures)


def test_it_says_that_no_judge_looked(page):
    text = " ".join(Page(page).words)
    assert "No judge ships with this model" in text and "pictures of other things still show" not in text


@pytest.fixture(scope="module")
def evil(case, tmp_path_factory):
    """The page of a prompt that is out to run code; its tokens are single characters."""
    path = tmp_path_factory.mktemp("evil")
    return investigate(replace(case, prompt=EVIL, seeds=1, steps=1), path, command=f"denoscope {EVIL}").page


def test_prompts_stay_text(evil):
    parsed = Page(evil.read_text())
    assert parsed.tags.count("script") == 3  # figures, plotly.js, ours
    assert EVIL in "".join(parsed.words)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_every_figure_without_a_word_on_the_console(page, tmp_path, width):
    seen, console = browse(page, PROBE, tmp_path, width)
    assert seen["width"] == width and console == []
    assert seen["drawn"] and all(seen["drawn"])
    assert seen["scroll"] <= width and seen["right"] <= width


@pytest.mark.slow
def test_figures_are_read_saved_and_moved_without_a_mouse(page, tmp_path, finished):
    from denoscope.analysis.scores import load_store

    seen, console = browse(page, PROBE, tmp_path, 1280)
    assert console == [] and set(seen["tools"]) <= {2, 4} and 4 in seen["tools"]
    assert seen["moved"] and seen["told"] == "step 2 of 2"
    moved = load_store(finished / "results.zarr" / "effect")
    part = moved["moved"].isel(evaluation_prompt=(moved["kind"] == "efficacy").values)
    assert f"{float(part.mean()):.3g}" in {f"{float(c):.3g}" for c in seen["cells"]["moved"] if "." in c}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("paper", ["paper", "card"])
@pytest.mark.parametrize("ink", ["ink", "soft", "faint", "accent"])
def test_text_has_contrast_on_light_and_dark(page, scheme, paper, ink):
    found = [re.findall(rf"--{name}: (#[0-9a-f]{{6}})", page)[scheme] for name in (ink, paper)]
    assert contrast(*found) >= 4.5


def test_the_code_on_the_page_paints_its_first_pictures(page, finished, monkeypatch):
    from denoscope.analysis.scores import load_store

    code = unescape(re.findall(r"<pre>(import denoscope.*?)</pre>", page, re.S)[0])
    monkeypatch.chdir(finished)
    names = {}
    exec(code.replace(".show()", ""), names)
    effect = load_store(finished / "results.zarr" / "effect")
    for state in ("before", "after"):
        painted = to_array(names[state].images).values.astype(int)
        shown = effect[state].values[: len(painted)].astype(int)
        assert abs(painted - shown).max() <= 1  # batches of another size round differently in the last bit


@pytest.mark.slow
def test_a_browser_shows_an_evil_prompt_as_text(evil, tmp_path):
    seen, console = browse(evil.read_text(), PROBE, tmp_path, 390)
    assert console == [] and all(seen["drawn"]) and unescape(seen["title"]).startswith(EVIL)


@pytest.mark.slow
def test_the_console_is_really_watched(page, tmp_path):
    broken = page.replace("Plotly.newPlot", "Plotly.noSuchPlot(", 1).replace("noSuchPlot((", "noSuchPlot(")
    with pytest.raises(AssertionError, match="CONSOLE"):
        browse(broken, PROBE, tmp_path, 390)


def test_text_has_a_margin_and_a_width_on_every_page():
    style = (Path(page_module.__file__).parent / "templates" / "style.html.jinja").read_text()
    (rule,) = re.findall(r"^main, header, footer \{(.*)\}$", style, re.MULTILINE)
    assert "max-width: 62rem" in rule and "margin: 0 auto" in rule and "padding: 0 1.25rem" in rule
