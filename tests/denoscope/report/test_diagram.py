"""Pictures of models: every block is there, alike ones together, and nothing in them is markup."""

import xml.etree.ElementTree as ET

import pytest

from denoscope.models.synthetic.sizes import full_size
from denoscope.report.diagram import diagram, rows_of
from tests.models.families.test_families import FAMILIES, opened


def words(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_is_drawn(name):
    model = opened(name)
    drawn = 0
    for part in {s.component for s in model.sites()}:
        rows = rows_of(model, part)
        drawn += sum(row.number for row in rows)
        names = [row.name for row in rows]
        assert len(set(names)) == len(names) and set(names) <= set(words(diagram(model)))
    assert drawn == len({(s.component, s.block) for s in model.sites()})


@pytest.mark.stress
def test_alike_blocks_stand_together():
    rows = {row.name: row for row in rows_of(full_size("flux-dev"), "transformer")}
    assert list(rows) == ["in", "block.0-18 (19)", "single.0-37 (38)", "out"]
    assert rows["block.0-18 (19)"].lines[3] == "joint_attn@img: q_proj k_proj v_proj out"
    assert rows["block.0-18 (19)"].stream == (4096, 3072)
    assert "text_encoder_2  T5EncoderModel" in words(diagram(full_size("flux-dev")))


@pytest.mark.stress
def test_boxes_of_one_column_do_not_overlap():
    svg = ET.fromstring(diagram(full_size("sdxl")))
    boxes = [r.attrib for r in svg.iter("{http://www.w3.org/2000/svg}rect") if "rx" in r.attrib]
    assert len(boxes) > 20
    for left in {b["x"] for b in boxes}:
        spans = sorted((int(b["y"]), int(b["y"]) + int(b["height"])) for b in boxes if b["x"] == left)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
        assert spans[-1][1] <= int(svg.attrib["height"])


def test_a_name_with_markup_stays_text():
    model = opened("ddpm")
    before, model.name = model.name, "<script>alert(1)</script>"
    try:
        assert "<script>alert(1)</script>" in words(diagram(model)) and "<script>" not in diagram(model)
    finally:
        model.name = before
