"""Pictures over strengths: those of each run alone; the page and the widget show them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import denoscope
from denoscope.analysis import token_direction
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.run.context import When
from denoscope.steering.measures import measures_of
from denoscope.steering.page import script
from denoscope.steering.result import MOVED, Steered
from tests.denoscope.cli.calling import call, one_line
from tests.denoscope.report.browsing import Page, browse

EVIL = "cat </script><b>{{ 7 * 7 }}"
RUN = {"steps": 3, "guidance": 3.0}
LATE = When(steps=range(1, 3))
PROBE = """<script type="module">
const slider = document.querySelector("#slider input"), image = document.querySelector("#slider img");
const seen = [];
for (const at of [0, 1, 2]) {
  slider.value = at; slider.dispatchEvent(new Event("input"));
  seen.push([image.src, document.querySelector("#slider output").textContent, image.alt]);
}
parent.postMessage(JSON.stringify(seen), "*");
</script></body>"""


@pytest.fixture(scope="module")
def red(tiny):
    return token_direction(tiny, ["a red cat"], ["a blue cat"], "cat")


@pytest.fixture(scope="module")
def found(tiny, red):
    def bright(outcome):
        return outcome.images.mean((1, 2, 3))

    how = {"strengths": [2, -1], "subject": "cat", "measures": {"bright": bright}, "when": LATE}
    return denoscope.steered(tiny, red, [EVIL, "a red cat"], seeds=[3, 4], **how, **RUN)


def test_each_strength_is_its_run_alone(tiny, red, found):
    assert found.data["strength"].values.tolist() == [-1.0, 0.0, 2.0]
    for strength in (-1.0, 0.0, 2.0):
        act = [red.of("cat").steer(strength, LATE)] if strength else []
        run = denoscope.trace(tiny, ["a red cat"] * 2, seeds=[3, 4], interventions=act, **RUN)
        own = found.data.sel(strength=strength, prompt="a red cat")
        levels = (run.images.clamp(0, 1) * 255).movedim(1, -1).numpy()
        assert np.abs(levels - own["pictures"].values).max() <= 0.51  # rounding
        bright = run.images.mean((1, 2, 3)).double().numpy()
        np.testing.assert_allclose(own["values"].sel(metric="bright"), bright, atol=1e-5)
    moved = found.data["values"].sel(metric=MOVED)
    assert (moved.sel(strength=0.0) == 0).all() and (moved.sel(strength=2.0) > 0).all()


def test_strengths_share_the_steps_before_the_first_change(tiny, red):
    rows = []
    seen = tiny.denoiser.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        how = {"strengths": [1, 2, 3, 4], "subject": "cat", "guidance": 1.0, "steps": 4}
        denoscope.steered(tiny, red, ["a red cat"], seeds=[0], when=When(steps=[3]), **how)
    finally:
        seen.remove()
    assert sum(rows) == 4 + 4  # a plain run, and the last step of each other strength


def test_it_is_kept_and_shows_itself(found, tmp_path):
    found.save(tmp_path / "s.zarr")
    again = Steered.load(tmp_path / "s.zarr")
    assert again.data.equals(found.data) and repr(again) == repr(found)
    frame = again.to_frame()
    assert list(frame) == ["strength", "metric", "mean", "low", "high"] and len(frame) == 3 * 2
    assert found._repr_html_().count("<img") == 3


def test_the_page_holds_all_pictures_and_no_prompt_is_a_script(found, tmp_path):
    page = found.page(tmp_path / "steered.html", command="denoscope steer <b>").read_text()
    parsed = Page(page)
    assert all(link.startswith("data:") for link in parsed.links)
    assert parsed.tags.count("script") == 2 and parsed.tags.count("img") == 3 * 4
    assert "default-src 'none'" in page and "{{ 7 * 7 }}" in " ".join(parsed.words)
    told = json.loads(re.search(r'id="shown">(.*?)</script>', page, re.S)[1])
    assert told["labels"] == ["-1", "0", "+2"] and told["first"] == 1
    assert "denoscope steer <b>" in " ".join(parsed.words)


def test_a_browser_moves_the_slider(found, tmp_path):
    page = found.page(tmp_path / "steered.html").read_text()
    seen, console = browse(page, PROBE, tmp_path, 700)
    assert not console
    assert [label for _, label, _ in seen] == ["-1", "0", "+2"]
    assert len({source for source, _, _ in seen}) == 3
    assert seen[2][2].startswith(EVIL) and seen[2][2].endswith("seed 3, strength +2")


def test_the_widget_runs_the_pages_script(found, tmp_path):
    slider = found.widget()
    assert slider.shown["labels"] == ["-1", "0", "+2"] and slider.strength == 0.0
    assert str(slider._esm) == script() and script() in found.page(tmp_path / "steered.html").read_text()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"strengths": [0]}, UsageError, "at least one finite one other than 0"),
        ({"strengths": [float("inf")]}, UsageError, "finite"),
        ({"subject": "cta"}, NotFoundError, "did you mean 'cat'"),
        ({"subject": None}, UsageError, "whose attribute"),
        ({"measures": {MOVED: torch.mean}}, UsageError, "give the measure another name"),
        ({"when": When(steps=[7])}, UsageError, "7"),
    ],
)
def test_what_cannot_be_steered_is_told(tiny, red, wrong, error, message):
    given = {"seeds": [0], "strengths": [1], "subject": "cat", **RUN, **wrong}
    with pytest.raises(error, match=message):
        denoscope.steered(tiny, red, ["a red cat"], **given)


def test_what_cannot_be_measured_is_told(tiny, emoji):
    with pytest.raises(UsageError, match="no judge ships with .*--judge"):
        measures_of(["a woman"], tiny)
    with pytest.raises(NotFoundError, match="gender is never 'womn'.*'woman'"):
        measures_of(["gender=womn"], emoji)
    with pytest.raises(NotFoundError, match="no attribute 'gendr'"):
        measures_of(["gendr=woman"], emoji)
    assert list(measures_of(["gender=woman", "a woman"], emoji)) == ["gender=woman", "a woman"]


def test_on_the_command_line(folder, tmp_path):
    file = tmp_path / "red.safetensors"
    texts = ["--positive", "a red cat", "--negative", "a cook cat"]
    done = call("direction", "fit", *texts, "--subject", "cat", "-m", folder, "-o", file)
    assert done.exit_code == 0, done.output
    site = tmp_path / "site.safetensors"
    at = ["--site", "unet/mid.attn.0.0/cross_attn.out", "--seeds", 1, "--steps", 2]
    done = call("direction", "fit", *texts, *at, "-m", folder, "-o", site)
    assert done.exit_code == 0, done.output
    told = json.loads(call("direction", "show", file, site, "--json").stdout)
    assert {part["site"] for part in told["directions"]} == {"unet/in/text", at[1]}
    run = ["steer", "a red cat", file, "--subject", "cat", "--strengths=1", "--steps", 2, "--seeds", 1]
    done = call(*run, "-m", folder, "-o", tmp_path / "out", "--from-step", 1)
    assert done.exit_code == 0 and (tmp_path / "out" / "steered.html").is_file(), done.output
    assert Steered.load(tmp_path / "out" / "results.zarr").data.sizes["strength"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["direction", "fit", "--positive", "a", "--negative", "b"], "--subject is missing"),
        (
            ["direction", "fit", "--positive", "a", "--negative", "b", "--subject", "a", "--method", "pca"],
            "--method is 'pca' without --site; it is contrast in the text",
        ),
        (["steer", "a cat", "nowhere.safetensors"], "nowhere.safetensors"),
        (["steer", "a cat", "nowhere.safetensors", "--strengths", "1;2"], "write numbers with commas"),
    ],
)
def test_wrong_words_on_the_command_line_are_told(words, message, folder, tmp_path):
    done = call(*words, "-m", folder, "-o", tmp_path / "out")
    one_line(done, 2, message)
    assert not (tmp_path / "out").exists()
