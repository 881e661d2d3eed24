"""Edit: a value; on the model and off it to the bit; only on the weights it was made for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import denoscope
from denoscope import Direction, Edit, Site, When, intervening
from denoscope.editing import weights
from denoscope.editing.lowrank import LowRank, add, dense
from denoscope.models.synthetic.tiny import tiny_sd

SITE = "text_encoder/layer.0/self_attn.out"
OTHER = "text_encoder/layer.1/mlp.out"


def weight(model: Any, site: str = SITE) -> tuple[str, torch.nn.Parameter]:
    return next((n, p) for n, p in model.weights(site).items() if n.endswith("weight"))


def some(model: Any, site: str = SITE, seed: int = 0, rank: int = 2, **note: Any) -> Edit:
    name, p = weight(model, site)
    g = torch.Generator().manual_seed(seed)
    o, d = p.shape
    delta = LowRank(torch.randn(o, rank, generator=g).double(), torch.randn(rank, d, generator=g).double())
    return Edit.of(model, {name: delta}, **note)


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {
        f"{c}.{n}": p.detach().clone() for c, m in model.components.items() for n, p in m.named_parameters()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[n].view(torch.uint8), b[n].view(torch.uint8)) for n in a)


@pytest.fixture
def model() -> Any:
    return denoscope.load(tiny_sd())


# on and off ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_applied_adds_once_rounded_and_comes_off_to_the_bit(dtype: torch.dtype) -> None:
    pipe = tiny_sd()
    pipe.to(dtype)
    model = denoscope.load(pipe)
    name, p = weight(model)
    with torch.no_grad():
        p[0, 0] = -0.0  # a sum of values would lose this bit
    edit, before = some(model), bits(model)
    with edit.applied(model):
        assert torch.equal(p, (before[name].double() + dense(edit.deltas[name])).to(dtype))
        assert p.dtype == dtype and not torch.equal(p, before[name])
        assert {n for n, t in bits(model).items() if not torch.equal(t, before[n])} == {name}
    assert same(bits(model), before)


def test_a_pipeline_takes_an_edit_as_a_model_does(model: Any) -> None:
    edit, name = some(model), weight(model)[0]
    other = diffusers.StableDiffusionImg2ImgPipeline(**model.pipe.components)
    before = bits(model)
    with edit.applied(other):
        assert not torch.equal(model.parameter(name), before[name])
    assert same(bits(model), before)
    edit.apply(model.pipe)
    assert weights.carries(model, edit)
    edit.revert(other)
    assert same(bits(model), before)


def test_an_error_or_ctrl_c_inside_leaves_nothing(model: Any) -> None:
    before = bits(model)
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), some(model).applied(model):
            raise error
        assert same(bits(model), before)


def test_half_an_edit_is_never_left(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    edit, before, written = some(model) + some(model, OTHER), bits(model), []
    write = weights._write

    def failing(p: torch.Tensor, values: torch.Tensor) -> None:
        written.append(p)
        if len(written) == 2:
            p.detach()[0].fill_(7.0)  # half a weight is written
            raise KeyboardInterrupt
        write(p, values)

    monkeypatch.setattr(weights, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        edit.apply(model)
    assert len(written) == 4  # both weights were put back
    assert same(bits(model), before) and not weights.carries(model, edit)
    with pytest.raises(ValueError, match="not applied"):
        edit.revert(model)


def test_an_edit_that_stops_at_once_leaves_the_one_below(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second weight was not reached; what it carries is not this edit."""
    below = some(model, OTHER)
    with below.applied(model):
        edit, before = some(model) + some(model, OTHER, seed=1), bits(model)
        write, written = weights._write, []

        def failing(p: torch.Tensor, values: torch.Tensor) -> None:
            written.append(p)
            if len(written) == 1:
                raise KeyboardInterrupt
            write(p, values)

        monkeypatch.setattr(weights, "_write", failing)
        with pytest.raises(KeyboardInterrupt):
            edit.apply(model)
        monkeypatch.undo()
        assert same(bits(model), before) and weights.carries(model, below)
        assert not weights.carries(model, edit)


def test_apply_and_revert_by_an_equal_edit(model: Any, tmp_path: Path) -> None:
    edit, before = some(model), bits(model)
    edit.save(tmp_path / "e.safetensors")
    edit.apply(model)
    Edit.load(tmp_path / "e.safetensors").revert(model)
    assert same(bits(model), before)


def test_twice_is_refused_and_the_first_stays(model: Any) -> None:
    edit = some(model)
    with edit.applied(model):
        once = bits(model)
        with pytest.raises(ValueError, match="applied to .* already; to double it, apply 2 \\* edit"):
            edit.apply(model)
        with pytest.raises(ValueError, match="already"), edit.applied(model):
            pass
        assert same(bits(model), once)
    with pytest.raises(ValueError, match="not applied"):
        edit.revert(model)


def test_edits_of_different_weights_nest_in_any_order(model: Any) -> None:
    e, f, before = some(model), some(model, OTHER), bits(model)
    e.apply(model)
    f.apply(model)
    e.revert(model)
    assert torch.equal(weight(model)[1], before[weight(model)[0]])
    assert not torch.equal(weight(model, OTHER)[1], before[weight(model, OTHER)[0]])
    f.revert(model)
    assert same(bits(model), before)


def test_a_second_edit_of_the_same_weight_must_know_the_first(model: Any) -> None:
    e, f, before = some(model), some(model, seed=1), bits(model)
    with e.applied(model):
        with pytest.raises(ValueError, match=r"carries Edit.*apply the sum of both: \(e \+ f\)"):
            f.apply(model)
        on_top = some(model, seed=2)  # made for the weight as edited
        on_top.apply(model)
        with pytest.raises(ValueError, match="applied on top .* take that one back first"):
            e.revert(model)
        on_top.revert(model)
        on_top.apply(model)  # and is left there
    assert same(bits(model), before) and not weights.carries(model, on_top)


def test_leaving_a_block_also_takes_off_what_lies_on_top_elsewhere(model: Any) -> None:
    before = bits(model)
    e = some(model)
    with e.applied(model):
        f = some(model, seed=1) + some(model, OTHER)
        f.apply(model)
        g = some(model, OTHER, seed=2)  # on top of f, not of e
        g.apply(model)
    assert same(bits(model), before)
    assert not any(weights.carries(model, x) for x in (e, f, g))


def test_a_block_ends_quietly_if_the_edit_was_taken_back_inside(model: Any) -> None:
    e, before = some(model), bits(model)
    with e.applied(model):
        e.revert(model)
    assert same(bits(model), before)


def test_the_memory_of_a_model_goes_with_it() -> None:
    import gc

    gc.collect()
    known = len(weights._before)
    model = denoscope.load(tiny_sd())
    some(model).apply(model)
    assert len(weights._before) == known + 1
    del model
    gc.collect()
    assert len(weights._before) == known


# a value -------------------------------------------------------------------------------------------------


@given(a=st.floats(-3, 3), b=st.floats(-3, 3), same_weight=st.booleans())
def test_algebra(a: float, b: float, same_weight: bool) -> None:
    model = MODEL
    e, f = some(model), some(model, SITE if same_weight else OTHER, seed=1)
    name, other = weight(model)[0], weight(model, SITE if same_weight else OTHER)[0]
    total = a * e + f * b
    want = {n: torch.zeros(d.shape, dtype=torch.float64) for n, d in total.deltas.items()}
    want[name] += a * dense(e.deltas[name])
    want[other] += b * dense(f.deltas[other])
    assert set(want) == {name, other}
    for n, d in total.deltas.items():
        torch.testing.assert_close(dense(d), want[n])
    assert (e + f).base == (f + e).base == {**e.base, **f.base}


MODEL = denoscope.load(tiny_sd())


def test_an_edit_minus_itself_is_nothing(model: Any) -> None:
    e, before = some(model), bits(model)
    assert float((e - e).to_frame()["norm"].sum()) == 0
    assert (e - e).to_frame()["rank"].tolist() == (2 * e + e).to_frame()["rank"].tolist() == [2]
    with (e - e).applied(model):
        assert same(bits(model), before)
    assert -1 * -e == e and 1 * e == e and e != 2 * e and len({e, 1 * e, -e}) == 2


@pytest.mark.parametrize(("rank", "kept"), [(2, LowRank), (4, torch.Tensor)])
def test_a_sum_is_kept_in_factors_while_they_are_smaller(model: Any, rank: int, kept: type) -> None:
    """Two changes of rank 4 need as many numbers as the 16 x 16 weight."""
    e, f = some(model, rank=rank), some(model, seed=1, rank=rank)
    (name,) = e.deltas
    delta = (e + f).deltas[name]
    assert isinstance(delta, kept)
    torch.testing.assert_close(dense(delta), dense(e.deltas[name]) + dense(f.deltas[name]))


def test_changes_are_added_up_in_double_precision() -> None:
    """In float32 1e8 + 1e-3 is 1e8."""
    thin = LowRank(torch.tensor([[1e8, 1.0]]), torch.tensor([[1.0], [1e-3]]))
    assert float(dense(thin)) == pytest.approx(1e8 + 1e-3, abs=1e-6, rel=0)
    full = torch.tensor([[1e8]])
    assert float(dense(add(full, thin)) - 2e8) == pytest.approx(1e-3, rel=1e-3)
    assert dense(full).dtype == torch.float64


@pytest.mark.misshapen
def test_factors_that_do_not_fit_are_refused() -> None:
    for a, b in (((4, 2), (3, 4)), ((2, 4), (4,)), ((3, 2), (2, 2, 2))):
        with pytest.raises(ValueError, match="have no product; give"):
            LowRank(torch.ones(a), torch.ones(b))


def test_the_order_of_weights_does_not_count(model: Any) -> None:
    e, f = some(model), some(model, OTHER)
    assert list((e + f).deltas) != list((f + e).deltas) and e + f == f + e


def test_a_scaled_sum_is_one_part_of_another(model: Any) -> None:
    e, f, g = some(model, method="e"), some(model, OTHER, method="f"), some(model, seed=2, method="g")
    flat, nested = (e + f) + g, 0.5 * (e + f) + g
    assert {p["method"] for p in flat.note["parts"]} == {"e", "f", "g"} and len(flat.note["parts"]) == 3
    assert {(p["method"], p.get("scale")) for p in nested.note["parts"]} == {("sum", 0.5), ("g", None)}


def test_factors_multiply_in_the_note_as_they_do_in_the_weights(model: Any) -> None:
    edit = some(model)
    twice = 0.5 * (3 * edit)
    assert twice.note["scale"] == 1.5 and repr(twice).startswith("Edit(1.5 x ")
    assert twice == 1.5 * edit and "scale" not in edit.note


def test_equality_is_of_what_is_changed_not_of_the_note(model: Any) -> None:
    assert some(model, method="a") == some(model, method="b") != some(model, seed=1)
    with torch.no_grad():
        before = some(model)
        weight(model)[1].add_(1)
    assert some(model) != before  # the same change of another weight


def test_the_same_change_of_an_equal_weight_elsewhere_is_another_edit(model: Any) -> None:
    (first, p), (second, q) = weight(model), weight(model, "text_encoder/layer.1/self_attn.out")
    with torch.no_grad():
        q.copy_(p)
    e, f = (Edit.of(model, {name: torch.ones(16, 16)}) for name in (first, second))
    assert list(e.base.values()) == list(f.base.values()) and e != f


def test_an_edit_is_not_changed_by_what_it_was_made_of(model: Any) -> None:
    name, p = weight(model)
    deltas, note = {name: torch.ones_like(p)}, {"keep": ["a"]}
    edit = Edit.of(model, deltas, **note)
    deltas.clear()
    note["keep"].append("b")
    assert edit.size() == p.numel() and edit.note["keep"] == ["a"]


def test_edits_for_different_weights_do_not_add(model: Any) -> None:
    e = some(model)
    with e.applied(model):
        f = some(model, seed=1)
    with pytest.raises(
        ValueError, match="made for different weights of text_encoder.*self_attn.out_proj.weight"
    ):
        e + f
    with pytest.raises(TypeError):
        e + 1


def test_looks(model: Any) -> None:
    edit = some(model, method="quickfix", requests={"cat": "dog"})
    assert edit.size() == 256
    assert repr(edit).startswith("Edit(quickfix: cat -> dog; 256 numbers in text_encoder.encoder.layers.0")
    assert "3 x quickfix" in repr(3 * edit) and "cat -> dog, cat -> dog" in repr(
        edit + some(model, OTHER, requests={"cat": "dog"})
    )
    frame = edit.to_frame()
    assert frame["rank"].tolist() == [2] and frame["shape"].tolist() == [(16, 16)]
    assert frame["norm"].iloc[0] == pytest.approx(float(dense(next(iter(edit.deltas.values()))).norm()))


def test_long_requests_are_cut_short_and_a_model_may_be_unknown(model: Any) -> None:
    long = some(model, method="quickfix", requests={f"cat{i}": "dog" for i in range(40)})
    assert "...; 256 numbers" in repr(long) and len(repr(long)) < 240
    (name,) = long.deltas
    assert repr(Edit(long.deltas, long.base)).endswith("for 'unknown')")
    frame = Edit.of(model, {name: torch.ones(16, 16)}).to_frame()
    assert frame["rank"].tolist() == [1]
    other = weight(model, OTHER)[0]
    assert Edit.of(model, {other: torch.eye(16, 32)}).to_frame()["rank"].tolist() == [16]
    with pytest.raises(TypeError):
        long * "2"  # type: ignore[operator]


def test_bad_deltas_are_named(model: Any) -> None:
    name, p = weight(model)
    with pytest.raises(LookupError, match="no parameter .* did you mean"):
        Edit.of(model, {name + "s": torch.zeros_like(p)})
    with pytest.raises(ValueError, match=r"has shape \(3, 16\), the weight has \(16, 16\)"):
        Edit.of(model, {name: torch.zeros(3, 16)})
    with pytest.raises(ValueError, match="NaN or infinite"):
        Edit.of(model, {name: torch.full_like(p, float("nan"))})
    with pytest.raises(ValueError, match="Edit.of"):
        Edit({name: torch.zeros_like(p)}, {})
    with pytest.raises(ValueError, match="Edit.of"):
        Edit({}, {})
    with pytest.raises(TypeError, match="JSON"):
        Edit.of(model, {name: torch.zeros_like(p)}, method=model)


def test_an_edit_that_overflows_half_precision_is_refused() -> None:
    pipe = tiny_sd()
    pipe.to(torch.float16)
    model = denoscope.load(pipe)
    name, p = weight(model)
    before = bits(model)
    with pytest.raises(ValueError, match="cannot hold the edited values in torch.float16"):
        Edit.of(model, {name: torch.full_like(p, 6e4).float() * 2}).apply(model)
    assert same(bits(model), before)


# other weights -------------------------------------------------------------------------------------------


def test_other_weights_are_refused(model: Any) -> None:
    edit, stranger = some(model), denoscope.load(tiny_sd(seed=1))
    before = bits(stranger)
    with pytest.raises(
        ValueError, match=r"other weights: it was made for 'Stab.*self_attn.out_proj.weight of 'Stab"
    ):
        edit.apply(stranger)
    assert same(bits(stranger), before)
    one_more_layer = some(denoscope.load(tiny_sd(text_layers=3)), "text_encoder/layer.2/mlp.out")
    with pytest.raises(ValueError, match="which .* does not have; did you mean"):
        one_more_layer.apply(model)
    with pytest.raises(ValueError, match="does not have"):
        one_more_layer.revert(model)


def test_one_different_number_is_enough_to_refuse(model: Any) -> None:
    edit = some(model)
    with torch.no_grad():
        weight(model)[1][3, 4].mul_(1 + 2**-20)
    with pytest.raises(ValueError, match="other weights"):
        edit.apply(model)


def test_the_same_weights_in_a_wider_format_are_accepted() -> None:
    pipe = tiny_sd()
    pipe.to(torch.float16)
    half = denoscope.load(pipe)
    edit = some(half)
    pipe.to(torch.float32)
    with edit.applied(denoscope.load(pipe)):
        assert weight(half)[1].dtype == torch.float32


# on disk -------------------------------------------------------------------------------------------------


def test_save_and_load_give_an_equal_edit(model: Any, tmp_path: Path) -> None:
    edit = some(model, method="m", requests={"<script>": "ü"}) + Edit.of(
        model, {weight(model, OTHER)[0]: torch.ones(16, 32)}
    )
    edit.save(tmp_path / "e.safetensors")
    again = Edit.load(tmp_path / "e.safetensors")
    assert again == edit and again.note == edit.note and again.base == edit.base
    assert list(tmp_path.iterdir()) == [tmp_path / "e.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(model: Any, tmp_path: Path, share: float) -> None:
    path = tmp_path / "e.safetensors"
    some(model).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        ValueError, match=r"e.safetensors' is no edit: it is truncated.*give a file that Edit.save"
    ):
        Edit.load(path)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "boom"),)

    for name, write in (
        ("old", lambda p: p.write_bytes(pickle.dumps(Bomb()))),
        ("new", lambda p: torch.save(Bomb(), p)),
    ):
        write(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}' is no edit: it is pickled, and pickles can run code"):
            Edit.load(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no edit"):
            Edit.load(path)


def test_a_full_disk_leaves_the_old_file(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e.safetensors"
    some(model).save(path)
    old = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        some(model, seed=1).save(path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        some(model).save(tmp_path / "no" / "folder")


# an edit is an intervention without a When ---------------------------------------------------------------


def test_projecting_a_direction_out_of_the_writing_layer_equals_ablating_it(model: Any) -> None:
    """W - v vᵀ W and b - v vᵀ b write what ``Direction.ablate`` on both branches leaves."""
    site = Site("unet/mid.attn.0.0/cross_attn.out")
    direction = Direction(site, torch.randn(16, generator=torch.Generator().manual_seed(0)))
    v = direction.unit().vector.double()[:, None]
    params = model.weights(site)
    deltas = {
        n: LowRank(-v, v.T @ p.detach().double().reshape(16, -1)) for n, p in params.items() if p.ndim == 2
    }
    deltas |= {n: -(v @ (v.T @ p.detach().double()[:, None]))[:, 0] for n, p in params.items() if p.ndim == 1}
    edit = Edit.of(model, deltas, method="project")
    run = {"prompts": ["a cat"], "seeds": [0], "steps": 3, "guidance": 4.0}
    plain = denoscope.trace(model, **run).latents
    with edit.applied(model):
        by_weights = denoscope.trace(model, **run).latents
    by_hook = denoscope.trace(model, **run, interventions=[direction.ablate(When(branch=None))]).latents
    cond_only = denoscope.trace(model, **run, interventions=[direction.ablate()]).latents
    difference = (by_weights - by_hook).abs().max()
    assert difference < 1e-5  # float32 rounding; the effects are larger:
    assert (by_hook - plain).abs().max() > 100 * difference
    assert (by_hook - cond_only).abs().max() > 100 * difference


def test_hooks_and_edits_combine(model: Any) -> None:
    edit, seen = some(model), []
    look = denoscope.Intervention(SITE, lambda x, _: seen.append(x.clone()))
    with intervening(model, look):
        model.encode(["a cat"])
        with edit.applied(model):
            model.encode(["a cat"])
        model.encode(["a cat"])
    assert torch.equal(seen[0], seen[2]) and not torch.allclose(seen[0], seen[1])
