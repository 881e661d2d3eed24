"""Concepts from files that a user can replace: our own layout, TIMED's and RoAD's."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..investigation.wording import fit, same
from ..models.arguments import checked
from ..models.errors import MissingFileError, UsageError
from ..models.store.canonical import json_hash
from .concept import Concept, Probe

DATA = Path(__file__).parent / "data" / "concepts.csv"
BYSTANDER = "bystander"
DRAWN = 1
"""Bystanders that each concept is tried on; over many concepts that is enough for what hardly moves."""
SMALL = {"a", "an", "of", "on", "with"}
"""Words that say nothing of what is shown."""
Row = Mapping[str, str]

OWN = ("kind", "said", "meant", "prompt", "paraphrases", "plural", "neighbours")
NUMBERS = range(1, 6)
TIMED = ("old", "new", *(f"{c}{i}" for i in NUMBERS for c in ("positive", "gt", "negative", "gn")))
ROAD = (
    "prompt",
    "old",
    "new",
    *(f"{c}{i}" for i in NUMBERS for c in ("positive", "positive_old", "positive_new")),
    *(f"{c}{i}" for i in NUMBERS for c in ("negative", "negative_new")),
)


@checked
def read_concepts(path: str | Path) -> list[Concept]:
    """Read concepts from a CSV file, whose columns tell which of three layouts it has.

    - our own, ``denoscope/bench/data/concepts.csv``: kind, said, meant, prompt (with ``{}`` for the word),
      paraphrases (as the prompt, with `` | `` between them), plural (what is painted ``>`` what should be
      seen), neighbours (words, with `` | `` between them); only kind, said, meant and prompt must be filled
      in. A row of kind ``bystander`` has the text of another thing under ``said``; each concept is
      tried on one of these, drawn by its name.
    - TIMED (Orgad et al. 2023): old, new, positive1, gt1, negative1, gn1 ... 5.
    - RoAD (Arad et al. 2024): prompt, old, new, positive1, positive_old1, positive_new1, negative1,
      negative_new1 ... 5.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for other columns, no rows, and rows that cannot be used; the message names the row.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"there is no file {str(path)!r}; give a CSV file of concepts")
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), restval="")
        rows = [{(k or "").strip().lower(): _flat(v) for k, v in row.items()} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{str(path)!r} is no CSV file: {error}") from error
    columns = {(c or "").strip().lower() for c in reader.fieldnames or ()}
    for layout, make in ((ROAD, _road), (TIMED, _timed)):
        if set(layout) <= columns:
            return _each(path, rows, make)
    if not set(OWN[:4]) <= columns:
        raise UsageError(
            f"{str(path)!r} has the columns {', '.join(sorted(columns))}; give {', '.join(OWN)}, or those of "
            f"TIMED ({', '.join(TIMED[:4])} ...) or RoAD ({', '.join(ROAD[:5])} ...)"
        )
    asked = [row for row in rows if row["kind"] != BYSTANDER]
    pool = [row["said"] for row in rows if row["kind"] == BYSTANDER]
    return _each(path, asked, partial(_own, pool=pool))


def embedded_concepts() -> list[Concept]:
    """Return the concepts of the embedded world that ship: 50, of seven kinds.

    >>> found = embedded_concepts()
    >>> len(found), found[0].name
    (50, 'firefighter -> cook')
    """
    return read_concepts(DATA)


def _flat(value: str | list[str] | None) -> str:
    return value.strip() if isinstance(value, str) else ""


def _each(path: Path, rows: Sequence[Row], make: Callable[[Row], Concept]) -> list[Concept]:
    found = list[Concept]()
    for i, row in enumerate(rows, 1):
        try:
            found.append(make(row))
        except UsageError as error:
            raise UsageError(f"{str(path)!r}, concept {i}: {error}") from None
    names = [c.name for c in found]
    if not found or len(set(names)) < len(names):
        what = f"{next(n for n in names if names.count(n) > 1)!r} twice" if found else "no concepts"
        raise UsageError(f"{str(path)!r} holds {what}; give at least one, each once")
    return found


def _own(row: Row, pool: Sequence[str]) -> Concept:
    said, meant, prompt = (row[name] for name in ("said", "meant", "prompt"))
    near = _parts(row.get("neighbours", ""))
    source, target = _put(prompt, said), _put(prompt, meant)
    peers = [_put(prompt, word) for word in near]
    probes = [Probe("efficacy", source, target, (source, *peers))]
    for template in _parts(row.get("paraphrases", "")):
        other = _put(template, said)
        alike = tuple(_put(template, word) for word in near)
        probes.append(Probe("paraphrase", other, _put(template, meant), (other, *alike)))
    probes.append(Probe("capitals", source.upper(), target, (source, *peers)))
    if row.get("plural"):
        painted, _, seen = (part.strip() for part in row["plural"].partition(">"))
        if not painted or not seen:
            raise UsageError(
                f"the plural {row['plural']!r} says not what should be seen; write 'two cats > two dogs'"
            )
        probes.append(Probe("plural", painted, seen, (painted,)))
    probes += [
        Probe("neighbour", peer, peer, (source, target, *(p for p in peers if p != peer))) for peer in peers
    ]
    probes += [Probe("bystander", text, text, (source, target)) for text in _bystanders(row, near, pool)]
    return Concept(row["kind"], said, meant, tuple(probes))


def _bystanders(row: Row, near: Sequence[str], pool: Sequence[str]) -> list[str]:
    """Texts of the pool that share no word with the concept, drawn by its name."""
    own = {part for text in (row["said"], row["meant"], *near) for part in same(text)} - SMALL
    free = [text for text in pool if not own & {*same(text)}]
    return sorted(free, key=lambda text: json_hash([row["said"], text]))[:DRAWN]


def _put(template: str, word: str) -> str:
    if template.count("{}") != 1:
        raise UsageError(f"the wording {template!r} needs exactly one {{}} where the word goes")
    return fit(template, word).replace("{}", word)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split("|") if part.strip()]


def _timed(row: Row) -> Concept:
    old, new = row["old"], row["new"]
    probes = [Probe("efficacy", old, new, (old,))]
    for i in NUMBERS:
        positive, negative = row[f"positive{i}"], row[f"negative{i}"]
        probes += _published(positive, row[f"gt{i}"], positive, negative, row[f"gn{i}"])
    return Concept("TIMED", old, new, _once(probes))


def _road(row: Row) -> Concept:
    prompt, old, new = (row[name] for name in ("prompt", "old", "new"))
    probes = [Probe("efficacy", prompt, new, (old,))]
    for i in NUMBERS:
        wanted, less = row[f"positive_new{i}"], row[f"positive_old{i}"]
        negative, wrong = row[f"negative{i}"], row[f"negative_new{i}"]
        probes += _published(row[f"positive{i}"], wanted, less, negative, wrong)
    return Concept("RoAD", prompt, new, _once(probes))


def _published(positive: str, wanted: str, less: str, negative: str, wrong: str) -> list[Probe]:
    """A positive and a negative text, where they are there, and ask for two things."""
    found = list[Probe]()
    if positive and wanted and wanted != less:
        found.append(Probe("paraphrase", positive, wanted, (less,)))
    if negative and wrong and wrong != negative:
        found.append(Probe("neighbour", negative, negative, (wrong,)))
    return found


def _once(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    return tuple({p.prompt: p for p in reversed(probes)}.values())[::-1]
