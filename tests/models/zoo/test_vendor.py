"""From packages as npm gives them to pictures with records: a small fake of each package, no network."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

import pytest
import torch

from denoscope.models.zoo.training.data import vendor

pytest.importorskip("resvg_py")

ROWS = [
    {"hexcode": "2764-FE0F", "label": "red heart", "group": 0, "subgroup": 0, "tags": ["love"]},
    {
        "hexcode": "1F469-200D-1F692",
        "label": "woman firefighter",
        "group": 1,
        "subgroup": 1,
        "skins": [{"hexcode": "1F469-1F3FF-200D-1F692", "tone": 5}],
    },
    {"hexcode": "1F9D1-200D-1F373", "label": "cook", "group": 1, "subgroup": 1},
    {"hexcode": "1F1EE-1F1F9", "label": "flag: Italy", "group": 2, "subgroup": 2},
    {
        "hexcode": "1F46B",
        "label": "woman and man holding hands",
        "group": 1,
        "subgroup": 3,
        "skins": [{"hexcode": "1F469-1F3FB-200D-1F468-1F3FF", "tone": [1, 5]}],
    },
    {"hexcode": "1F3FB", "label": "light skin tone"},
]
GROUPS = ("symbols", "people-body", "flags")
SUBGROUPS = ("heart", "person-role", "country-flag", "family")
RED = {"body": '<rect width="16" height="16" fill="#ff0000"/>'}
NAMES = ("red-heart", "woman-firefighter", "woman-firefighter-dark-skin-tone", "cook", "flag-italy")


@pytest.fixture
def packages(tmp_path):
    """The unpacked packages, where ``fetch`` looks for them."""

    def package(name: str, version: str, files: dict) -> None:
        for path, content in files.items():
            file = tmp_path / f"{name.replace('@', '').replace('/', '-')}-{version}" / "package" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))

    messages = {
        "groups": [{"order": i, "key": key} for i, key in enumerate(GROUPS)],
        "subgroups": [{"order": i, "key": key} for i, key in enumerate(SUBGROUPS)],
    }
    package(*vendor.UNICODE_NAMES, {"en/data.json": ROWS, "en/messages.json": messages})
    for each in vendor.VENDORS:
        names = NAMES if each.style == "noto" else NAMES[:1]
        icons = {
            "width": 16,
            "height": 16,
            "icons": {**dict.fromkeys(names, RED), "logo": RED, "empty": {"body": ""}},
        }
        package(each.package, each.version, {"icons.json": icons})
    return tmp_path


def test_pictures_and_records(packages):
    pictures = vendor.build(packages)
    assert pictures.pixels.shape == (len(pictures), 4, 64, 64) and pictures.pixels.dtype == torch.uint8
    assert torch.equal(pictures.pixels[0, :, 32, 32], torch.tensor([255, 0, 0, 255], dtype=torch.uint8))
    noto = {(r.concept, r.gender, r.skin, r.licence) for r in pictures.records if r.style == "noto"}
    assert noto == {
        ("red heart", "none", "none", "Apache-2.0"),
        ("firefighter", "woman", "none", "Apache-2.0"),
        ("firefighter", "woman", "dark", "Apache-2.0"),
        ("cook", "person", "none", "Apache-2.0"),
    }  # no flag
    assert {r.style for r in pictures.records} == {v.style for v in vendor.VENDORS}
    colours = {r.style: r.colour for r in pictures.records if r.concept == "red heart"}
    assert colours.pop("monochrome") is None and set(colours.values()) == {"red"}


def test_share_alike_sets_are_not_used():
    assert {v.licence for v in vendor.VENDORS} == {"Apache-2.0", "CC-BY-4.0", "MIT"}
    assert not [v for v in vendor.VENDORS if "openmoji" in v.package or v.package.endswith("emojione-v1")]


def test_artwork_that_is_not_square_is_centred():
    picture = vendor.render(
        vendor._svg({"body": '<rect width="8" height="16" fill="#00f"/>', "width": 8}, {"height": 16})
    )
    assert picture.shape == (64, 64, 4)
    assert (
        (picture[32, 20:44, 3] == 255).all() and not picture[:, :15, 3].any() and not picture[:, 49:, 3].any()
    )


def test_without_npm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(vendor.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="install Node.js"):
        vendor.fetch("emojibase-data", "17.0.0", tmp_path)


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/icons.json")
        entry.size = 20_000
        archive.addfile(entry, io.BytesIO(bytes(torch.randint(256, (20_000,), dtype=torch.uint8).tolist())))

    def packed(size: int):
        def run(*args, **kwargs):
            (tmp_path / "x.tgz").write_bytes(buffer.getvalue()[:size])
            return subprocess.CompletedProcess(args, 0, stdout="x.tgz\n")

        return run

    monkeypatch.setattr(vendor.shutil, "which", lambda name: name)
    monkeypatch.setattr(vendor.subprocess, "run", packed(10_000))
    with pytest.raises((EOFError, tarfile.TarError, OSError)):
        vendor.fetch("@a/b", "1.0.0", tmp_path)
    monkeypatch.setattr(vendor.subprocess, "run", packed(len(buffer.getvalue())))
    assert (vendor.fetch("@a/b", "1.0.0", tmp_path) / "icons.json").stat().st_size == 20_000
