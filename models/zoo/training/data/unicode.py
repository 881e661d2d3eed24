"""What Unicode says about each emoji: name, group, gender, skin tone and hair."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .world import TONES

_HAIR = {
    "1F9B0": "red hair",
    "1F9B1": "curly hair",
    "1F9B2": "bald",
    "1F9B3": "white hair",
    "1F471": "blond hair",
}
_PEOPLE = {f"person{k}" for k in ("", "-gesture", "-role", "-fantasy", "-activity", "-sport", "-resting")}


@dataclass(frozen=True)
class Character:
    """One emoji of Unicode."""

    code: str
    name: str
    group: str
    subgroup: str
    gender: str
    skin: str
    hair: str
    tags: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as icon sets write it, with the skin tone."""
        return slug(self.name) + (f"-{self.skin}-skin-tone" if self.skin in TONES else "")

    @property
    def drawable(self) -> bool:
        """Whether the world has a place for it."""
        flag = self.group == "flags" and self.subgroup != "flag"
        family = self.subgroup == "family" and self.skin != "none"
        return not flag and not family and self.group != "component" and self.skin != "several"


def load_characters(package: Path) -> dict[str, Character]:
    """Read emojibase's table: characters by code point, with a row for each skin tone."""
    rows = json.loads((package / "en" / "data.json").read_text())
    messages = json.loads((package / "en" / "messages.json").read_text())
    groups = {row["order"]: row["key"] for row in messages["groups"]}
    subgroups = {row["order"]: row["key"] for row in messages["subgroups"]}
    found: dict[str, Character] = {}
    for row in rows:
        if "group" not in row:
            continue
        place = groups[row["group"]], subgroups[row["subgroup"]]
        for variant in (row, *row.get("skins", [])):
            character = _character(row, variant, *place)
            found[character.code] = character
    return found


def slug(name: str) -> str:
    """A name as icon sets write it."""
    plain = re.sub("[’'“”.!]", "", name.lower()).replace("&", "and")
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")


def _character(row: dict[str, Any], variant: dict[str, Any], group: str, subgroup: str) -> Character:
    code = "-".join(part for part in variant["hexcode"].upper().split("-") if part != "FE0F")
    parts = code.split("-")
    tone = variant.get("tone")
    skin = "none" if not tone else "several" if isinstance(tone, list) else TONES[tone - 1]
    return Character(
        code=code,
        name=row["label"],
        group=group,
        subgroup=subgroup,
        gender=_gender(row, parts) if subgroup in _PEOPLE else "none",
        skin=skin,
        hair=next((_HAIR[part] for part in parts if part in _HAIR), "none"),
        tags=tuple(row.get("tags", [])[:8]),
    )


def _gender(row: dict[str, Any], parts: list[str]) -> str:
    name = row["label"].lower()
    signs = (
        ("woman", "2640" in parts or "1F469" in parts),
        ("man", "2642" in parts or "1F468" in parts),
        ("woman", row.get("gender") == 0),
        ("man", row.get("gender") == 1),
        ("woman", bool(re.search(r"\b(woman|girl|princess|mrs|queen)\b", name))),
        ("man", bool(re.search(r"\b(man|boy|prince|santa)\b", name))),
    )
    return next((gender for gender, holds in signs if holds), "person")
