"""Files of other tools' edits: whole weights by name, with the component before it or without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from denoscope import Edit, load
from denoscope.editing import export, quickfix, read_foreign
from denoscope.editing.lowrank import dense
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_sdxl
from tests.editing.export.others import edit_of

UCE, ESD = ("attn2.to_k", "attn2.to_v"), ("attn2",)


def some(model: Any, *only: str) -> Edit:
    """An edit of some of the UNet's layers."""
    edits = [edit_of(model, ["unet"], name) for name in only]
    return sum(edits[1:], edits[0])


def written(model: Any, edit: Edit, path: Path, without: str = "unet.", kept: str = "attn2") -> Path:
    """Whole weights of the edited model, as UCE and ESD write them: those they train, changed or not."""
    with edit.applied(model):
        named = model.components["unet"].named_parameters()
        whole = {f"unet.{n}": p.detach().clone() for n, p in named if kept in n}
        whole |= {n: model.parameter(n).detach().clone() for n in edit.deltas}
    save_file({name.removeprefix(without): weight for name, weight in whole.items()}, path)
    return path


def on(model: Any, edit: Edit) -> Mapping[str, Tensor]:
    with edit.applied(model):
        return {name: model.parameter(name).detach().clone() for name in edit.deltas}


FILES = {"uce": (UCE, "unet."), "esd": (ESD, "unet."), "time": (UCE, "")}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_becomes_the_edit_that_made_it(kind: str, tmp_path: Path) -> None:
    """To the bit on the weights; the change itself to the rounding of the weights that the file holds."""
    (only, prefix), model = FILES[kind], load(tiny_sd())
    made = some(model, *only)
    found = read_foreign(model, written(model, made, tmp_path / "edit.safetensors", prefix))
    assert set(found.deltas) == set(made.deltas)  # what the file holds unchanged drops out
    assert found.note["components"] == ["unet"] and found.note["file"] == "edit.safetensors"
    for name, change in made.deltas.items():
        assert torch.allclose(dense(found.deltas[name]), dense(change), atol=1e-7), name
    ours, theirs = on(model, made), on(model, found)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_names_of_several_components_and_of_flux(tmp_path: Path) -> None:
    model = load(tiny_flux())
    made = edit_of(model, ["transformer", "text_encoder"], "q_proj")
    whole = on(model, made)
    save_file(dict(whole), tmp_path / "a.safetensors")
    found = read_foreign(model, tmp_path / "a.safetensors")
    assert sorted(found.note["components"]) == ["text_encoder", "transformer"]
    assert all(torch.equal(weight, whole[name]) for name, weight in on(model, found).items())


def test_a_text_encoder_by_older_names(tmp_path: Path) -> None:
    """``text_model.`` and position_ids, which transformers once had."""
    model = load(tiny_sd())
    made = quickfix(model, {"cat": "dog"})
    old = {n.replace("text_encoder.", "text_model."): weight for n, weight in on(model, made).items()}
    save_file({**old, "text_model.embeddings.position_ids": torch.arange(32)}, tmp_path / "a.safetensors")
    assert list(read_foreign(model, tmp_path / "a.safetensors").deltas) == list(made.deltas)


def test_names_that_fit_two_encoders_are_asked_about(tmp_path: Path) -> None:
    model, path = load(tiny_sdxl()), tmp_path / "a.safetensors"
    name = "encoder.layers.0.mlp.fc1.weight"
    save_file({name: torch.zeros(32, 16)}, path)
    with pytest.raises(
        ValueError, match=r"fit text_encoder and text_encoder_2 of .*component='text_encoder'"
    ):
        read_foreign(model, path)
    for part in ("text_encoder", "text_encoder_2"):
        found = read_foreign(model, path, component=part)
        assert list(found.deltas) == [f"{part}.{name}"] and found.note["components"] == [part]
    with pytest.raises(LookupError, match="no component 'text_encoder_3'; did you mean 'text_encoder"):
        read_foreign(model, path, component="text_encoder_3")


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_rounding_to_another_format_is_no_change(dtypes: tuple[Any, Any], tmp_path: Path) -> None:
    ours, theirs = dtypes
    wide = load(tiny_sd())
    made = some(wide, "attn2.to_k")
    model = load(tiny_sd().to(dtype=ours))
    path = tmp_path / "a.safetensors"
    whole = {n.removeprefix("unet."): w for n, w in on(wide, made).items()}
    kept = {n: p.detach() for n, p in wide.pipe.unet.named_parameters() if "attn1" in n}
    save_file({n: w.to(theirs) for n, w in {**kept, **whole}.items()}, path)
    found = read_foreign(model, path)
    assert set(found.deltas) == set(made.deltas)
    for name, weight in on(model, found).items():
        assert torch.equal(weight.half(), whole[name.removeprefix("unet.")].half()), name


def test_of_a_weight_only_what_was_changed_is_in_the_edit(tmp_path: Path) -> None:
    """Rows that the tool left alone are those of the model, although the file holds them rounded."""
    model, name = load(tiny_sd()), "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    whole = model.parameter(f"unet.{name}").detach().clone()
    whole[0] += 1
    save_file({name: whole.half()}, tmp_path / "a.safetensors")
    change = dense(read_foreign(model, tmp_path / "a.safetensors").deltas[f"unet.{name}"])
    assert change[0].abs().min() > 0.9 and not change[1:].any()


def test_pickles_are_refused_with_the_fix(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "edit.pt"
    torch.save({"conv_in.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"edit.pt' is pickled, and pickles can run code.*convert it to saf"):
        read_foreign(model, path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="truncated or no safetensors"):
        read_foreign(model, path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_foreign(model, tmp_path / "none.safetensors")


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "a.safetensors"

    def read(weights: dict[str, Tensor]) -> None:
        save_file(weights, path)
        read_foreign(model, path)

    attn = "mid_block.attentions.0.transformer_blocks.0.attn2"
    own = model.parameter(f"unet.{attn}.to_k.weight").detach().clone()
    with pytest.raises(LookupError, match=rf"holds {attn}.to_x.weight, .*no unet.*did you mean 'unet.*to_"):
        read({f"{attn}.to_x.weight": own + 1, f"{attn}.to_k.weight": own})
    with pytest.raises(ValueError, match=r"of shape \(3, 3\), and unet.*to_k.weight of .* has \(16, 16\)"):
        read({f"{attn}.to_k.weight": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match="changes nothing: its 1 weights are those of"):
        read({f"{attn}.to_k.weight": own})
    with pytest.raises(ValueError, match="of torch.int64; give a file of weights"):
        read({f"{attn}.to_k.weight": torch.zeros(16, 16, dtype=torch.int64)})
    with pytest.raises(ValueError, match="holds nothing"):
        read({})
    with pytest.raises(ValueError, match="holds NaN"):
        read({f"{attn}.to_k.weight": own / 0})


def test_a_lora_is_no_file_of_whole_weights(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "lora.safetensors"
    export.lora(model, quickfix(model, {"cat": "dog"}), path)
    with pytest.raises(ValueError, match=r"is a LoRA .*fuse_lora"):
        read_foreign(model, path)
