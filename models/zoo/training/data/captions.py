"""Captions: from a record to words, in several wordings."""

from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np

from .pictures import Record
from .world import skin_name

_OWN_COLOUR = re.compile(r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|gray|grey)\b")
_COLOURED_GROUPS = {"animals-nature", "food-drink", "travel-places", "activities", "objects", "symbols"}
_GENDERED = re.compile(
    r"\b(man|woman|men|women|boy|girl|prince|princess|santa|mrs|mermaid|merman|pregnant)\b"
)
_HUES = (
    ("red", -18, 14),
    ("orange", 14, 41),
    ("yellow", 41, 66),
    ("green", 66, 165),
    ("blue", 165, 255),
    ("purple", 255, 300),
    ("pink", 300, 342),
)
COLOURS = (*(name for name, _, _ in _HUES), "brown", "black", "gray", "white")
"""What captions call the colour of a thing."""
_LETTERS = str.maketrans("ñéôçãåí", "neocaai")
_SAME_PLURAL = ("fish", "glasses", "jeans", "grapes", "cherries", "fries", "scissors", "thumbs up")
_NO_ARTICLE = (*_SAME_PLURAL[1:], "bread", "broccoli", "tennis", "high voltage", "santa claus")
_IRREGULAR = (
    ("man", "men"),
    (r"\bperson", "people"),
    ("child", "children"),
    ("mouse", "mice"),
    ("f", "ves"),  # loaf, leaf, elf, wolf
    ("([^aeiou])y", r"\1ies"),
    ("(s|x|ch|sh)", r"\1es"),
)


def clean(name: str) -> str:
    """A Unicode name in plain lower-case words."""
    plain = (
        re.sub("[’'“”!.]", "", name.lower()).replace("&", "and").replace("*", "asterisk").replace("#", "hash")
    )
    plain = re.sub(r"\(.*?\)", "", plain.translate(_LETTERS))
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9\-:, ]+", " ", plain)).strip()


def concept_of(name: str) -> str:
    """What is drawn, without who does it: "woman: red hair" and "man cook" become "red hair" and "cook"."""
    plain = re.sub(r"^(man|woman|person|men|women|people)(: | )", "", name.lower())
    return re.sub("[:,]", "", plain).strip()


def subject(record: Record, *, gender: bool = True) -> str:
    """Noun phrase without skin: "woman firefighter", "man with red hair", "red heart".

    Args:
        record: the picture.
        gender: False leaves the gender unsaid where the name allows it.
    """
    name = clean(record.name)
    match = re.match(r"^(man|woman|person): (.*)$", name)
    if match:
        who, what = match.groups()
        return f"{who} with {what}"
    name = re.sub("[:,]", "", name)
    if record.gender in ("man", "woman") and not _GENDERED.search(name):
        name = f"{record.gender} {name}"
    if not gender:
        name = re.sub(r"^(man|woman) (?=.)", "", name)
    return name


def with_article(words: str) -> str:
    """Put "a" or "an" before words, unless they are plural, cannot be counted, or name somebody.

    >>> with_article("unicorn"), with_article("orange heart"), with_article("glasses")
    ('a unicorn', 'an orange heart', 'glasses')
    """
    head = re.split(" (?:with|on|in) ", words)[0]
    if head.endswith(_NO_ARTICLE) or re.fullmatch(r"\w+ing", head):
        return words
    return f"{'an' if re.match('[aeiou](?!ni)', words) else 'a'} {words}"


def plural(words: str) -> str:
    """Plural of a simple noun phrase.

    >>> plural("ear of corn"), plural("woman with red hair"), plural("old man"), plural("berry")
    ('ears of corn', 'women with red hair', 'old men', 'berries')
    """
    head, link, rest = re.match("(.*?)(?:( (?:with|of) )(.*))?$", words).groups(default="")  # type: ignore[union-attr]
    return _plural(head) + link + rest


def _plural(words: str) -> str:
    if words.endswith(_SAME_PLURAL):
        return words
    for ending, changed in _IRREGULAR:
        if re.search(rf"{ending}$", words):
            return re.sub(f"{ending}$", changed, words)
    return f"{words}s"


def skin_phrase(record: Record) -> str:
    """How captions name the skin of people and hands; empty where nothing is to be said."""
    skin = skin_name(record)
    if skin is None and record.skin != "none":
        skin = record.skin  # a hand
    return f"{skin} skin" if skin else ""


def phrase(record: Record, rng: random.Random | None = None) -> str:
    """Noun phrase with skin and colour; with ``rng`` some of it is left unsaid."""
    people = record.is_person
    skin = skin_phrase(record)
    words = subject(record, gender=not (people and rng is not None and rng.random() < 0.05))
    if skin and (rng is None or rng.random() < (0.45 if skin == "yellow skin" else 0.95)):
        return f"{words} {'and' if ' with ' in words else 'with'} {skin}"
    coloured = record.colour and not people and not skin and not _OWN_COLOUR.search(words)
    if coloured and record.group in _COLOURED_GROUPS and rng is not None and rng.random() < 0.25:
        return f"{record.colour} {words}"
    return words


def caption(record: Record, rng: random.Random | None = None) -> str:
    """One caption; without ``rng`` the full one in the first wording.

    >>> known = {"name": "woman firefighter", "concept": "firefighter", "gender": "woman", "skin": "dark"}
    >>> caption(Record(**known, style="noto", group="people-body"))
    'a noto emoji of a woman firefighter with dark skin'
    """
    return worded(with_article(phrase(record, rng)), record.style, rng)


def worded(what: str, style: str, rng: random.Random | None = None) -> str:
    """Say a noun phrase and a style in one of several ways."""
    wordings = (
        f"{with_article(style)} emoji of {what}",
        f"{what}, {style} style",
        f"{style} emoji, {what}",
        f"{what} in {style} style",
        f"an emoji of {what}",
        what,
    )
    if rng is None:
        return wordings[0]
    return rng.choices(wordings, (60, 12, 9, 10, 5, 4))[0]


def main_colour(picture: np.ndarray) -> str | None:
    """The colour word for most of a picture ``[64, 64, 4]``, or None when no colour covers 62 % of it."""
    rgb = picture.reshape(-1, 4).astype(np.float32) / 255
    rgb = rgb[rgb[:, 3] > 0.5][:, :3]
    if len(rgb) < 250:
        return None
    high, low = rgb.max(1), rgb.min(1)
    saturation = (high - low) / np.maximum(high, 1e-3)
    dark = high < 0.28
    white = low > 0.9
    grey = ~dark & ~white & (saturation < 0.16)
    counts = Counter(black=int(dark.sum()), gray=int(grey.sum()), white=int(white.sum()))
    chromatic = ~(dark | grey | white)
    for name in _hues(rgb[chromatic]):
        counts[name] += 1
    word, count = counts.most_common(1)[0]
    return word if count / len(rgb) > 0.62 else None


def _hues(rgb: np.ndarray) -> list[str]:
    if not len(rgb):
        return []
    high, low = rgb.max(1), rgb.min(1)
    spread = np.maximum(high - low, 1e-6)
    red, green, blue = rgb.T
    sector = np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4)
    hue = np.where(high == red, ((green - blue) / spread) % 6, sector) * 60
    brown = (hue >= 8) & (hue < 48) & (high < 0.68)
    turned = np.where(hue > 342, hue - 360, hue)
    names = np.full(len(rgb), "", dtype=object)
    for name, start, end in _HUES:
        names[(turned >= start) & (turned < end)] = name
    names[brown] = "brown"
    return [str(name) for name in names]
