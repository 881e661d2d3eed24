"""Get the vendors' artwork from npm, find out what each picture shows, and render it.

Left out: share-alike sets (OpenMoji, EmojiOne 1), national flags, components, and pictures of several people
with different skin tones. Needs ``npm`` and ``resvg_py`` (extra ``zoo``).
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from ....errors import StateError
from .captions import concept_of, main_colour
from .pictures import SIZE, Pictures, Record
from .unicode import Character, load_characters, slug


@dataclass(frozen=True)
class Vendor:
    """One artwork set: how the world calls its style, and the pinned npm package."""

    style: str
    package: str
    version: str
    licence: str


VENDORS = (
    Vendor("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
    Vendor("blob", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    Vendor("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    Vendor("flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    Vendor("glossy", "@iconify-json/fluent-emoji", "1.2.7", "MIT"),
    Vendor("monochrome", "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT"),
    Vendor("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
    Vendor("firefox", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
)
UNICODE_NAMES = ("emojibase-data", "17.0.0")
_OVERSAMPLING = 4


def fetch(package: str, version: str, folder: Path) -> Path:
    """Download one pinned npm package and unpack it; does nothing when it is there already."""
    target = folder / f"{package.replace('@', '').replace('/', '-')}-{version}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise StateError("npm is needed to get the artwork; install Node.js")
        command = [npm, "pack", f"{package}@{version}", "--silent"]
        packed = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(folder / packed) as archive:
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            archive.extractall(partial, filter="data")
        partial.rename(target)
    return target / "package"


def build(folder: Path) -> Pictures:
    """Fetch, name and render every picture of every vendor.

    Args:
        folder: where the npm packages are kept.
    """
    characters = load_characters(fetch(*UNICODE_NAMES, folder))
    packages = {vendor.style: fetch(vendor.package, vendor.version, folder) for vendor in VENDORS}
    found = [item for vendor in VENDORS for item in _pictures(vendor, packages, characters)]
    pixels, records = [], []
    for record, svg in track(found, "rendering"):
        picture = render(svg)
        if (picture[..., 3] > 12).mean() > 0.005:
            pixels.append(picture)
            records.append(_with_colour(record, picture))
    return Pictures(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), tuple(records))


def render(svg: str) -> np.ndarray:
    """One picture as uint8 ``[64, 64, 4]``: drawn four times as large, then averaged."""
    import resvg_py  # noqa: PLC0415 - only this step needs the extra

    large = SIZE * _OVERSAMPLING
    png = resvg_py.svg_to_bytes(svg_string=svg, width=large, height=large)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(image).copy()


def _with_colour(record: Record, picture: np.ndarray) -> Record:
    colour = None if record.style == "monochrome" else main_colour(picture)
    return Record(**{**record.__dict__, "colour": colour})


def _pictures(
    vendor: Vendor, packages: dict[str, Path], characters: dict[str, Character]
) -> Iterator[tuple[Record, str]]:
    icons = json.loads((packages[vendor.style] / "icons.json").read_text())
    names = _icon_names(vendor, packages, characters)
    seen: set[str] = set()
    for name, icon in icons["icons"].items():
        character = names.get(name) or names.get(name.replace("-facing", ""))
        if character is None or character.code in seen or not character.drawable:
            continue
        seen.add(character.code)
        yield _record(character, vendor), _svg(icon, icons)


def _icon_names(
    vendor: Vendor, packages: dict[str, Path], characters: dict[str, Character]
) -> dict[str, Character]:
    """Icon name to character: by Unicode names, the set's own table, and two sets with good tables."""
    names: dict[str, Character] = {}
    tables = ("flat" if vendor.style == "glossy" else vendor.style, "noto", "twemoji")
    by_slug = {character.slug: character for character in characters.values()}
    for i, style in enumerate(tables):
        table = packages[style] / "chars.json"
        rows: dict[str, str] = json.loads(table.read_text()) if table.is_file() else {}
        for code, name in rows.items():
            character = characters.get(_plain(code))
            if character is not None:
                names.setdefault(name, character)
        if i == 0:
            names = {**by_slug, **names}
    if vendor.style == "firefox":  # this set writes its names without hyphens
        names |= {name.replace("-", ""): character for name, character in names.items()}
    return names


def _record(character: Character, vendor: Vendor) -> Record:
    return Record(
        name=character.name,
        concept=concept_of(character.name),
        style=vendor.style,
        group=character.group,
        subgroup=character.subgroup,
        gender=character.gender,
        skin=character.skin,
        hair=character.hair,
        licence=vendor.licence,
        codepoint=character.code,
        tags=character.tags,
    )


def _svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    side = max(width, height)
    left, top = icon.get("left", 0) - (side - width) / 2, icon.get("top", 0) - (side - height) / 2
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="{left} {top} {side} {side}" color="#000">{icon["body"]}</svg>'


def _plain(code: str) -> str:
    return "-".join(part for part in re.split("-", code.upper()) if part != "FE0F")


__all__ = ["VENDORS", "Vendor", "build", "fetch", "render", "slug"]
