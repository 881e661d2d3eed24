"""Concepts from files: our own layout, TIMED's, RoAD's, and those that ship."""

from __future__ import annotations

import csv
import json
from typing import get_args

import pytest

from denoscope.bench import embedded_concepts, read_concepts
from denoscope.bench.concept import Aim, Concept, Probe, drawn, together
from denoscope.bench.reading import OWN, ROAD, TIMED
from denoscope.models import zoo

HEAD = ",".join(OWN)


def write(path, columns, *rows):
    with path.open("w", newline="") as file:
        made = csv.DictWriter(file, columns)
        made.writeheader()
        made.writerows(rows)
    return path


def test_fifty_concepts_ship_and_each_is_tried_in_every_way():
    found = embedded_concepts()
    assert len(found) == len({c.said for c in found}) == 50
    assert len({c.kind for c in found}) == 7
    for concept in found:
        assert all(concept.of(aim) for aim in get_args(Aim)), concept.name
        assert len(concept.of("bystander")) == 1


def test_what_ships_is_of_the_embedded_world_and_none_is_another_ones_target():
    world = json.loads((zoo.folder("emoji") / "world.json").read_text())
    known = {*world["concepts"], *world["styles"], *world["skins"], *world["colours"]}
    found = embedded_concepts()
    said = {c.said for c in found}
    assert said <= known
    assert not said & {c.meant for c in found}
    assert {c.meant.split(" on a ")[0].split(" with ")[0] for c in found} <= known


def test_a_row_of_our_own_layout(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text(
        f"{HEAD}\n"
        "things,cat,owl,a red {},a {} | my {},two cats > two owls,dog | ape\n"
        "bystander,a dog house,,,,,\n"
        "bystander,a tree,,,,,\n"
    )
    (one,) = read_concepts(file)
    assert (one.kind, one.requests) == ("things", {"cat": "owl"})
    assert one.probes == (
        Probe("efficacy", "a red cat", "a red owl", ("a red cat", "a red dog", "a red ape")),
        Probe("paraphrase", "a cat", "an owl", ("a cat", "a dog", "an ape")),
        Probe("paraphrase", "my cat", "my owl", ("my cat", "my dog", "my ape")),
        Probe("capitals", "A RED CAT", "a red owl", ("a red cat", "a red dog", "a red ape")),
        Probe("plural", "two cats", "two owls", ("two cats",)),
        Probe("neighbour", "a red dog", "a red dog", ("a red cat", "a red owl", "a red ape")),
        Probe("neighbour", "a red ape", "a red ape", ("a red cat", "a red owl", "a red dog")),
        Probe("bystander", "a tree", "a tree", ("a red cat", "a red owl")),  # the other speaks of a neighbour
    )


def test_four_columns_are_enough(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("kind,said,meant,prompt\nthings,cat,dog,a {}\n")
    (one,) = read_concepts(file)
    assert [p.aim for p in one.probes] == ["efficacy", "capitals"]


def test_timed(tmp_path):
    row = {"old": "A pack of hats", "new": "A pack of red hats"}
    for i in range(1, 6):
        row |= {f"positive{i}": f"{i} hats", f"gt{i}": f"{i} red hats"}
        row |= {f"negative{i}": f"{i} mats", f"gn{i}": f"{i} red mats"}
    (one,) = read_concepts(write(tmp_path / "t.csv", TIMED, row))
    assert one.requests == {"A pack of hats": "A pack of red hats"}
    assert one.of("efficacy") == [
        Probe("efficacy", "A pack of hats", "A pack of red hats", ("A pack of hats",))
    ]
    assert one.of("paraphrase")[4] == Probe("paraphrase", "5 hats", "5 red hats", ("5 hats",))
    assert one.of("neighbour")[0] == Probe("neighbour", "1 mats", "1 mats", ("1 red mats",))
    assert len(one.probes) == 11


def test_road(tmp_path):
    row = {"prompt": "the cook", "old": "a cat", "new": "a dog"}
    for i in range(1, 6):
        row |= {f"positive{i}": f"cook {i}", f"positive_old{i}": f"cat {i}", f"positive_new{i}": f"dog {i}"}
        row |= {f"negative{i}": f"hat {i}", f"negative_new{i}": f"dog hat {i}"}
    (one,) = read_concepts(
        write(tmp_path / "r.csv", [c.title() for c in ROAD], {k.title(): v for k, v in row.items()})
    )
    assert one.requests == {"the cook": "a dog"}
    assert one.of("efficacy") == [Probe("efficacy", "the cook", "a dog", ("a cat",))]
    assert one.of("paraphrase")[0] == Probe("paraphrase", "cook 1", "dog 1", ("cat 1",))
    assert one.of("neighbour")[4] == Probe("neighbour", "hat 5", "hat 5", ("dog hat 5",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", r"has the columns a, b; give kind, said"),
        (f"{HEAD}\n", "holds no concepts"),
        (f"{HEAD}\nx,cat,dog,a {{}},,,\nx,cat,dog,the {{}},,,\n", "holds 'cat -> dog' twice"),
        (f"{HEAD}\nx,cat,dog,a,,,\n", r"concept 1: the wording 'a' needs exactly one \{\}"),
        (f"{HEAD}\nx,cat,,a {{}},,,\n", "concept 1: .*write two words that differ"),
        (f"{HEAD}\nx,cat,dog,a {{}},a {{}},,\n", "concept 1: .*'a cat' is tried twice"),
        (f"{HEAD}\nx,cat,dog,a {{}},,two cats,\n", "concept 1: the plural 'two cats' says not what should"),
        ("\xff\xfe", "the columns"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, said):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_concepts(file)


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_concepts(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no CSV file"):
        read_concepts(tmp_path / "b.csv")


def test_what_a_concept_and_a_probe_refuse():
    with pytest.raises(ValueError, match="aim is 'quality'; it is 'efficacy', "):
        Probe("quality", "a", "b", ("a",))
    with pytest.raises(ValueError, match="name at least one other text"):
        Probe("efficacy", "a", "b", ())
    with pytest.raises(ValueError, match="a neighbour should stay what it is"):
        Probe("neighbour", "a", "b", ("c",))
    with pytest.raises(ValueError, match="no text of efficacy"):
        Concept("x", "a", "b", (Probe("neighbour", "c", "c", ("a",)),))


def test_a_draw_does_not_depend_on_the_order():
    every = embedded_concepts()
    assert drawn(every, 7) == drawn(every[::-1], 7)
    assert drawn(every, 7, salt="other") != drawn(every, 7)
    assert len(together(every)) == 50


def test_one_word_cannot_mean_two_things():
    first, second = (Concept("x", "a", m, (Probe("efficacy", "a", m, ("a",)),)) for m in ("b", "c"))
    with pytest.raises(ValueError, match="'a' is asked to mean 'b' and 'c'; choose one"):
        together([first, second])
