"""Pages of features: what is shown of each is what runs alone say; names are measured honestly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import denoscope
from denoscope.atlas import Atlas
from denoscope.atlas.telling import named, tells
from denoscope.models.errors import NotFoundError, StateError, UsageError
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes import Channels
from tests.denoscope.cli.calling import call, one_line
from tests.denoscope.report.browsing import Page, browse
from tests.dictionaries import doubled

SITE = "unet/mid.attn.0/resid.post"
EVIL = "a red </script><b>{{ 7 * 7 }}"
TEXTS = [EVIL, "a cat"] * 8
RUN = {"steps": 2, "guidance": 1.0}
PROBE = """<script>{
const field = document.getElementById("words"), seen = [];
for (const said of ["", "feature-none", "3", "a RED"]) {
  field.value = said; field.dispatchEvent(new Event("input"));
  seen.push([document.getElementById("count").textContent,
             [...document.querySelectorAll(".feature:not([hidden]) h2")].map((h) => h.textContent)]);
}
const by = document.getElementById("by"); by.value = "number"; by.dispatchEvent(new Event("change"));
seen.push([...document.querySelectorAll(".feature h2")].map((h) => Number(h.textContent)));
seen.push(getComputedStyle(document.querySelector(".seen")).backgroundImage.slice(0, 14));
parent.postMessage(JSON.stringify(seen), "*");
}</script></body>"""


@pytest.fixture(scope="module")
def square(tiny):
    return doubled(tiny, SITE)


@pytest.fixture(scope="module")
def atlas(tiny, square):
    return denoscope.browse_features(tiny, square, TEXTS, seeds=range(16), features=[3, 8], **RUN)


def test_numbers_are_those_of_the_activations(tiny, atlas):
    run = denoscope.trace(tiny, TEXTS, seeds=range(16), sites=[SITE], **RUN)
    x = run[SITE][:, :, 3].clamp_min(0)  # [step, sample, y, x]
    own = atlas.data.sel(feature=3)
    np.testing.assert_allclose(own["activity"], x.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(own["profile"], x.mean((1, 2, 3)), atol=1e-5)
    assert float(own["density"]) == pytest.approx(float((x > 0).float().mean()), abs=1e-3)
    best = int(own["top"][0])
    assert best == int(x.mean((0, 2, 3)).argmax())
    np.testing.assert_allclose(own["maps"][0], x.mean(0)[best], atol=1e-5)


def test_edits_are_those_of_the_feature(tiny, square, atlas):
    own = atlas.data.sel(feature=8)
    best = int(own["top"][0])
    acting = [square.edit(8, scale=5.0)]
    run = {"seeds": [best], **RUN}
    plain = denoscope.trace(tiny, [TEXTS[best]], **run).latents
    made = denoscope.trace(tiny, [TEXTS[best]], interventions=acting, **run)
    assert float(own["moved"].sel(scale=5.0)) == pytest.approx(
        float((made.latents - plain).square().mean().sqrt()), rel=1e-3
    )
    pixels = (made.images[0].clamp(0, 1) * 255).movedim(0, -1).numpy()
    assert np.abs(pixels - own["edited"].sel(scale=5.0).values).max() <= 0.51


def test_what_a_feature_tells_is_measured_on_samples_that_did_not_choose_it():
    rng = np.random.default_rng(0)
    prompts = ["a red cat" if i % 4 < 2 else "a dog" for i in range(160)]
    have = named(prompts, {"shade": ["dark", "light"] * 80, "rare": ["x"] * 159 + ["y"]})
    assert ("word", "a") not in have and ("rare", "y") not in have and ("shade", "dark") in have
    noise = {("noise", str(i)): rng.random(160) < 0.5 for i in range(40)}
    told = np.array([float("red" in p) for p in prompts]) + 0.1 * rng.random(160)
    frame = tells(np.stack([told, rng.random(160)], 1), [0, 1], have | noise)
    first, other = (frame[frame["feature"] == f].iloc[0] for f in (0, 1))
    assert first["name"] in ("cat", "red") and first["auc"] == 1.0 and first["tried"] == 45
    assert other["auc"] < 0.7  # the best of 45 for pure chance


def test_it_is_kept_and_shows_itself(atlas, tmp_path):
    atlas.save(tmp_path / "a.zarr")
    again = Atlas.load(tmp_path / "a.zarr")
    assert again.data.equals(atlas.data) and repr(again) == repr(atlas)
    assert again.to_frame()["feature"].tolist() == [3, 8] and "table" in again._repr_html_()


def test_the_page_is_whole_and_escapes_what_it_is_given(atlas, tmp_path):
    page = Page(atlas.page(tmp_path / "f.html", command="denoscope features <b>").read_text())
    assert all(link.startswith("data:") for link in page.links) and page.tags.count("article") == 2
    words = " ".join(page.words)
    assert "denoscope features <b>" in words and page.tags.count("script") == 1 and "49" not in words


@pytest.mark.stress
def test_a_browser_searches_the_page(atlas, tmp_path):
    seen, console = browse(atlas.page(tmp_path / "f.html").read_text(), PROBE, tmp_path, 900)
    assert not console
    assert seen[0][0] == "2 features" and seen[1] == ["0 features", []]
    assert seen[2] == ["1 feature", ["3"]] and len(seen[3][1]) >= 1
    assert seen[4] == [3, 8] and seen[5] == 'url("data:imag'


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"seeds": range(4), "prompts": TEXTS[:4]}, UsageError, "give 12 seeds or more"),
        ({"features": 0}, UsageError, "features is 0; the dictionary has 32"),
        ({"features": [32]}, UsageError, r"\[32\] are not among them"),
        ({"seeds": [0] * 16, "prompts": ["a cat"] * 16}, UsageError, "0 a cat"),
    ],
)
def test_what_cannot_be_browsed_is_told(tiny, square, wrong, error, message):
    given = {"prompts": TEXTS, "seeds": range(16), **RUN, **wrong}
    with pytest.raises(error, match=message):
        denoscope.browse_features(tiny, square, **given)


def test_on_the_command_line(tmp_path):
    tiny_ddim().save_pretrained(tmp_path / "ddim")
    doubled(denoscope.load(tmp_path / "ddim"), "unet/mid.res.1/resid.post").save(tmp_path / "d.safetensors")
    run = ["features", "browse", tmp_path / "d.safetensors", "-m", tmp_path / "ddim", "--seeds", 12]
    out = tmp_path / "out"
    run += ["--steps", 1, "-o", out]
    one_line(call(*run, "--features", "many"), 2, "write how many, 24, or which: 7,12,40")
    done = call(*run, "--features", "3,8", "--json")
    assert done.exit_code == 0 and '"feature": 8' in done.stdout, done.output
    assert (out / "features.html").is_file() and Atlas.load(out / "results.zarr").data.sizes["feature"] == 2


def test_a_dictionary_of_other_weights_is_refused(tiny, square):
    with pytest.raises(StateError, match="other weights"):
        denoscope.browse_features(tiny, replace(square, model="0" * 64), TEXTS, seeds=range(16), **RUN)
    channels = Channels(denoscope.Site("unet/mid.attn.7/resid.post"), square.channels.axes)
    with pytest.raises(NotFoundError):
        denoscope.browse_features(tiny, replace(square, channels=channels), TEXTS, seeds=range(16), **RUN)
