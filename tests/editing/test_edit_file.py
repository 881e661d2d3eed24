"""Edits on disk: what was written, or an error; equal edits are equal files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import denoscope
from denoscope import Edit
from denoscope.editing.edit_file import FILE
from denoscope.editing.lowrank import LowRank, dense
from denoscope.models.store.fingerprint import tensor_hash
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_sdxl

NAMES = [f"text_encoder.encoder.layers.{i}.self_attn.out_proj.weight" for i in (0, 1)]
MODEL = denoscope.load(tiny_sd())


def some(seed: int = 0, rank: int = 2, names: list[str] = NAMES, **note: Any) -> Edit:
    g = torch.Generator().manual_seed(seed)
    deltas = {
        n: LowRank(torch.randn(16, rank, generator=g).double(), torch.randn(rank, 16, generator=g).double())
        for n in names
    }
    return Edit.of(MODEL, deltas, method="by hand", requests={"cat": f"dog {seed}"}, **note)


def write(path: Path, flat: dict[str, torch.Tensor], base: dict[str, str], note: Any) -> None:
    """A file whose hash is right, whatever it holds."""
    FILE.write(path, flat, {"base": base, "note": note})


def test_a_flipped_bit_is_never_another_edit(tmp_path: Path) -> None:
    path, edit = tmp_path / "e.safetensors", some()
    edit.save(path)
    data, refused = path.read_bytes(), 0
    assert len(data) > 2500
    for i in range(0, 8 * len(data), 97):  # every byte of the header is near, and every bit of a number
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        try:
            again = Edit.load(path)
        except ValueError:
            refused += 1
        else:
            assert again == edit and again.note == edit.note
    assert refused > 0.95 * len(range(0, 8 * len(data), 97))


def test_a_changed_number_is_said_to_be_damage(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    some().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged edit: it is not what was written; give a file that Edit"):
        Edit.load(path)


def test_equal_edits_are_equal_files(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"

    def saved(edit: Edit) -> bytes:
        edit.save(path)
        return path.read_bytes()

    edit = some(a=1, b=[2], c={"d": 3})
    assert len({saved(edit) for _ in range(10)} | {saved(Edit.load(path))}) == 1
    e, f, g = some(), some(1), some(2)
    assert saved(e + f) == saved(f + e) and saved(e + f + g) == saved(g + (f + e))
    half = {n: LowRank(torch.ones(16, 1).half(), torch.ones(1, 16).half()) for n in NAMES}
    full = {n: LowRank(torch.ones(16, 1), torch.ones(1, 16)) for n in NAMES[::-1]}
    assert saved(Edit.of(MODEL, half)) == saved(Edit.of(MODEL, full))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 9])), min_size=2, max_size=4))
def test_the_order_of_a_sum_does_not_matter(parts: list[tuple[int, int]]) -> None:
    """Ranks of 9 make full tensors of the sum; equal parts are added up."""
    edits = [some(seed, rank) for seed, rank in parts]
    for e, f in zip(edits, edits[1:], strict=False):
        assert e + f == f + e and (e + f).note == (f + e).note
        want = dense(e.deltas[NAMES[0]]) + dense(f.deltas[NAMES[0]])
        torch.testing.assert_close(dense((e + f).deltas[NAMES[0]]), want)


def test_a_sum_is_taken_off_by_its_twin() -> None:
    e, f, before = some(), some(1), {n: MODEL.parameter(n).detach().clone() for n in NAMES}
    (e + f).apply(MODEL)
    (f + e).revert(MODEL)
    assert all(torch.equal(MODEL.parameter(n), before[n]) for n in NAMES)


def header(base: Any, note: Any) -> str:
    return json.dumps({"about": {"base": base, "note": note}, "sha256": "0" * 64})


def deep(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


def test_notes_that_are_no_json_of_use_are_refused(tmp_path: Path) -> None:
    name, path = NAMES[0], tmp_path / "e.safetensors"
    some().save(path)
    flat, base = load_file(path), dict(some().base)
    for about, message in (
        ("[" * 100_000, "its header is nested too deep"),
        ('{"sha256": ' + "[" * 100_000, "its header is nested too deep"),
        ("[1, 2]", "its header is .* not a mapping"),
        ('{"about": {}}', "its header lacks sha256"),
        (header(base, []), r"its header\['about'\]\['note'\] is \[\], not a mapping"),
        (header({name: 3}, {}), ".* is 3, not text like"),
    ):
        save_file(flat, path, {FILE.format: about})
        with pytest.raises(ValueError, match=f"damaged edit: {message}"):
            Edit.load(path)
    for note in (deep(5000), float("nan")):
        with pytest.raises(TypeError, match="the note is no JSON"):
            some(deep=note)


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (torch.ones(16, 16, dtype=torch.int32), "delta of torch.int32"),
        (torch.ones(16, 16).to(torch.float8_e4m3fn), "delta of torch.float8_e4m3fn"),
        (torch.ones(16, 16, dtype=torch.bool), "delta of torch.bool"),
        (torch.ones(16, 16, dtype=torch.complex64), "delta of torch.complex64"),
        (torch.ones(0, 16), r"delta of torch.float32, shape \(0, 16\)"),
    ],
)
def test_odd_tensors_are_refused_when_an_edit_is_made_or_read(
    delta: torch.Tensor, message: str, tmp_path: Path
) -> None:
    name, path = NAMES[0], tmp_path / "e.safetensors"
    with pytest.raises(ValueError, match=message):
        Edit({name: delta}, {name: "0" * 64})
    write(path, {f"{name}/delta": delta}, {name: "0" * 64}, {})
    with pytest.raises(ValueError, match=message):
        Edit.load(path)


@pytest.mark.misshapen
def test_odd_layouts_are_refused(tmp_path: Path) -> None:
    name, path, base = NAMES[0], tmp_path / "e.safetensors", {NAMES[0]: some().base[NAMES[0]]}
    one = torch.ones(16, 1)
    for flat, message in (
        ({f"{name}/left": one, f"{name}/right": torch.ones(1, 16, 1)}, "have no product"),
        ({f"{name}/left": torch.ones(16, 0), f"{name}/right": torch.ones(0, 16)}, "left of torch.float32"),
        ({f"{name}/left": one}, "expected left and right"),
        ({"other/delta": one}, "its header speaks of"),
        ({"delta": one}, "its header speaks of"),
    ):
        write(path, flat, base, {})
        with pytest.raises(ValueError, match=message):
            Edit.load(path)
    for shape in ((1, 16), (1, 16, 16), (16, 16, 1)):  # torch would stretch the first two
        write(path, {f"{name}/delta": torch.ones(shape)}, base, {})
        with pytest.raises(ValueError, match=r"has shape .*, the weight has \(16, 16\)"):
            Edit.load(path).apply(MODEL)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"lora": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"no edit: it is a safetensors file of no format of denoscope, expected"
    ):
        Edit.load(path)
    save_file({"w/delta": torch.ones(2)}, path, {"format": "denoscope.edit/1", "base": "{}", "note": "{}"})
    with pytest.raises(ValueError, match=r"of denoscope.edit/1, expected denoscope.edit/2; give"):
        Edit.load(path)
    save_file({"w/delta": torch.ones(2)}, path, {"denoscope.edit/3": "{}"})
    with pytest.raises(ValueError, match=r"of denoscope.edit/3, expected denoscope.edit/2; give"):
        Edit.load(path)


def test_rank_is_that_of_the_change_not_the_smaller_side() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.linalg.qr(torch.randn(16, 16, generator=g).double()).Q, torch.randn(16, 16, generator=g)
    b = torch.linalg.qr(b.double()).Q
    strong = torch.tensor([10.0, 10, 0.1, 0.1, 0.1] + [0] * 11).double()
    full = (a * strong) @ b
    twice = LowRank(torch.cat([a[:, :1], a[:, :1]], 1), torch.cat([b[:1], 2 * b[:1]], 0))  # one direction
    bias = NAMES[0].replace("weight", "bias")
    deltas = {NAMES[0]: full, NAMES[1]: twice, bias: torch.ones(16)}
    frame = Edit.of(MODEL, deltas).to_frame()
    assert frame["rank"].tolist() == [5, 1, 1] and frame["directions"].tolist() == [2, 1, 1]
    assert frame["norm"].tolist() == pytest.approx([float(strong.norm()), 3.0, 4.0])
    assert frame["energy_5"].tolist() == frame["energy_20"].tolist() == pytest.approx([1, 1, 1])
    flat = Edit.of(MODEL, {NAMES[0]: 2 * a @ b}).to_frame()  # sixteen directions of one strength
    assert flat["energy_5"].item() == pytest.approx(5 / 16) and flat["energy_20"].item() == pytest.approx(1)
    nothing = Edit.of(MODEL, {NAMES[0]: torch.zeros(16, 16), NAMES[1]: 0 * twice}).to_frame()
    for column in ("rank", "directions", "energy_5", "norm"):
        assert nothing[column].tolist() == [0, 0]


def test_names_are_those_of_every_version_of_transformers(tmp_path: Path) -> None:
    """Some versions have a module ``text_model`` there, as SDXL's second encoder in this one."""
    path, edit = tmp_path / "e.safetensors", some()

    def other(name: str) -> str:
        return name.replace("text_encoder.", "text_encoder.text_model.")

    other_version = {other(n): d for n, d in edit.deltas.items()}
    twin = Edit(other_version, {other(n): b for n, b in edit.base.items()}, edit.note)
    assert twin == edit and list(twin.deltas) == NAMES
    write(path, {f"{n}/delta": dense(d) for n, d in other_version.items()}, dict(twin.base), {})
    write(
        path,
        {f"{n}/delta": dense(d) for n, d in other_version.items()},
        {other(n): b for n, b in edit.base.items()},
        {},
    )
    with Edit.load(path).applied(MODEL):
        assert tensor_hash(MODEL.parameter(NAMES[0])) != edit.base[NAMES[0]]
    model = denoscope.load(tiny_sdxl())
    inside = model.pipe.text_encoder_2.text_model.encoder.layers[0].self_attn.out_proj.weight
    plain = "text_encoder_2.encoder.layers.0.self_attn.out_proj.weight"
    assert any(p is inside for p in model.weights("text_encoder_2/layer.0/self_attn.out").values())
    assert plain in model.weights("text_encoder_2/layer.0/self_attn.out")
    for name in (plain, plain.replace("2.", "2.text_model.", 1)):
        assert model.parameter(name) is inside
        assert list(Edit.of(model, {name: torch.ones_like(inside)}).deltas) == [plain]
    with pytest.raises(LookupError, match="no parameter 'text_encoder.encode.layers"):
        model.parameter("text_encoder.encode.layers.0.self_attn.out_proj.weight")
