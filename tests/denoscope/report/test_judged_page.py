"""What a judge said is read back from the page: every cell is the planted one, in its place."""

from __future__ import annotations

import base64
import io
import json
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image

from denoscope import Edit
from denoscope.analysis.scores import load_store
from denoscope.report.page import joined, render

STATES = ("before", "after", "oracle")
# kind -> pictures that fit their target best: before, after, oracle; all different, so that a swap shows
SHOWN = {"efficacy": (0, 1, 2), "generality": (1, 3, 2), "specificity": (3, 2, 1)}
GROUPS = {"efficacy": "the edited prompt", "generality": "other wordings", "specificity": "other things"}
NAMES = {"before": "before", "after": "after", "oracle": "unedited, asked outright"}
BEST, OTHER = 0.3, 0.1


def planted(effect):
    """The same questions, but judged, with pictures of one colour each: 100 + i before, 200 + i after."""
    fit = effect["fit"].astype(float).copy()
    fit[:] = OTHER
    targets, kinds, candidates = (list(effect[k].values) for k in ("target", "kind", "candidate"))
    for kind, counts in SHOWN.items():
        pairs = [(q, s) for q, k in enumerate(kinds) if k == kind for s in range(effect.sizes["seed"])]
        for state, count in zip(STATES, counts, strict=True):
            for i, (q, s) in enumerate(pairs):
                right = candidates.index(targets[q])
                best = right if i < count else (right + 1) % len(candidates)
                fit.loc[{"state": state}][q, s, best] = BEST
    looks = effect["colour"].copy()
    looks[:] = 1.0
    others = [q for q, kind in enumerate(kinds) if kind == "specificity"]
    looks[others[0], 0], looks[others[-1], -1] = 12.0, 40.0
    colours = {"before": 100, "after": 200, "oracle": 0}
    pictures = {}
    for name, colour in colours.items():
        picture = effect[name].copy()
        picture[:] = (colour + np.arange(len(picture)) % 50).astype(np.uint8)[:, None, None, None]
        pictures[name] = picture
    return effect.assign(fit=fit, colour=looks, **pictures).assign_attrs(judged=1)


@pytest.fixture(scope="module")
def effect(finished):
    return planted(load_store(finished / "results.zarr" / "effect"))


@pytest.fixture(scope="module")
def page(finished, effect):
    found = {name: load_store(finished / "results.zarr" / name) for name in ("look", "text", "denoiser")}
    whole = json.loads((finished / "run.json").read_text())
    return render({**found, "effect": effect}, whole, Edit.load(finished / "edit.safetensors"))


@pytest.fixture(scope="module")
def figures(page):
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])


def number(effect, kind):
    return int((effect["kind"] == kind).sum()) * effect.sizes["seed"]


def bars(figure):
    """(group, state as it is named) -> value."""
    return {
        (group.replace("<br>", " "), bar["name"]): value
        for bar in figure["data"]
        for group, value in zip(bar["y"], bar["x"], strict=True)
    }


def test_each_bar_is_the_planted_share(figures, effect):
    expected = {
        (GROUPS[kind], NAMES[state]): count / number(effect, kind)
        for kind, counts in SHOWN.items()
        for state, count in zip(STATES, counts, strict=True)
    }
    assert bars(figures["shown"]) == pytest.approx(expected)
    fits = {place: OTHER + (BEST - OTHER) * share for place, share in expected.items()}
    assert bars(figures["fit"]) == pytest.approx(fits)


def test_each_sentence_holds_the_planted_counts(page, effect):
    said = [unescape(line) for line in re.findall(r"<li(?: class=\"weak\")?>([^<]+)</li>", page)]
    n, m, k = (number(effect, kind) for kind in SHOWN)
    worst = [
        p
        for p, kind in zip(effect["prompt"].values, effect["kind"].values, strict=True)
        if kind == "specificity"
    ][-1]
    expected = [
        f"With the edited prompt, 1 of {n} pictures fit “dog” better than any other candidate "
        "(before the edit 0; the unedited model asked for “dog”: 2).",
        f"In other wordings, 3 of {m} pictures fit “dog” better than any other candidate "
        "(before the edit 1; the unedited model asked for “dog”: 2).",
        f"Of {k} pictures of other things, 2 still fit their own word best (before the edit 3).",
        f"Of {k} pictures of other things, {k - 2} look as before at a glance; most changed is “{worst}” "
        "(colour difference 40; 10 is seen at a glance, black and white are at 100).",
    ]
    assert [line for line in said if line in expected] == expected


def test_each_tile_holds_the_planted_counts(page, effect):
    tiles = re.findall(r'<div class="tile"><b>([^<]+)</b><span>([^<]+)</span>', page)
    counts = {unescape(text): value for value, text in tiles if "/" in value}
    k = number(effect, "specificity")
    assert counts == {
        "pictures of the edited prompt now show “dog”": f"1/{number(effect, 'efficacy')}",
        "pictures of other things look as before at a glance": f"{k - 2}/{k}",
    }


@pytest.mark.parametrize("name", ["hero", "grid-generality", "grid-specificity"])
def test_pictures_before_stand_above_those_after(name, figures, effect):
    figure = figures[name]
    kind = name.removeprefix("grid-").replace("hero", "efficacy")
    own = [i for i, k in enumerate(effect["kind"].values) if k == kind]
    first = (
        own[0] * effect.sizes["seed"] if kind != "specificity" else (own[-1] + 1) * effect.sizes["seed"] - 1
    )
    for when, base in (("before", 100), ("after", 200)):
        traces = [t for t in figure["data"] if t["hovertemplate"].startswith(f"<b>{when}</b>")]
        colours = [colour(t) for t in traces]
        assert colours[0] == base + first % 50 and all(base <= c < base + 50 for c in colours)
        heights = {height(figure, t) for t in traces}
        assert len(heights) == 1 and (heights.pop() > 0.5) == (when == "before")


def colour(trace):
    source = base64.b64decode(trace["source"].split(",", 1)[1])
    return int(np.asarray(Image.open(io.BytesIO(source)))[0, 0, 0])


def height(figure, trace):
    """Where the middle of a picture stands in its figure, from 0 at the bottom to 1."""
    axis = figure["layout"]["yaxis" + trace["yaxis"].removeprefix("y")]
    return sum(axis["domain"]) / 2


def test_the_judged_page_does_not_say_that_nobody_looked(page, figures):
    assert "No judge ships" not in page and "moved" not in figures
    assert set(re.findall(r'data-figure="([^"]+)"', page)) == set(figures)


def test_two_sections_cannot_give_the_same_name():
    assert joined([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="two sections of the page give a"):
        joined([{"a": 1}, {"b": 2}, {"a": 1}])
