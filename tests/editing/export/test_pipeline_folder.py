"""Whole pipelines: opened again by plain diffusers, and compared with the edit on the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from denoscope import Edit, load
from denoscope.editing import export, quickfix
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import (
    tiny_flux,
    tiny_ldm,
    tiny_pixart_alpha,
    tiny_sd3,
    tiny_sdxl,
)
from tests.editing.export.others import edit_of, furthest, seen

FAMILIES = {
    "sd": (tiny_sd, ("unet", "text_encoder", "vae")),
    "sdxl": (tiny_sdxl, ("unet", "text_encoder_2")),
    "sd3": (tiny_sd3, ("transformer", "text_encoder_3")),
    "flux": (tiny_flux, ("transformer", "text_encoder_2")),
    "pixart": (tiny_pixart_alpha, ("transformer", "text_encoder")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_opens_the_edited_pipeline_to_the_bit(family: str, tmp_path: Path) -> None:
    make, parts = FAMILIES[family]
    model = load(make())
    before, edit = seen(model), edit_of(model, parts)
    assert export.pipeline(model, edit, tmp_path / "edited") == tmp_path / "edited"
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "edited", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    again = load(pipe)
    again.size = model.size  # FLUX's tiny one has its own beside its files
    with edit.applied(model):
        assert max(furthest(seen(again), seen(model)).values()) < 1e-5  # weights lie otherwise in memory
        for part, network in model.components.items():
            state = again.components[part].state_dict()
            assert all(torch.equal(state[name], w) for name, w in network.state_dict().items()), part
    after = seen(again)
    assert furthest(before, after)["picture"] > 0.01
    assert set(furthest(before, seen(model)).values()) == {0.0}


def test_our_own_door_opens_it_and_the_edit_is_on_it(tmp_path: Path) -> None:
    model = load(tiny_sd())
    model.default_guidance = 3.0
    edit = quickfix(model, {"cat": "dog"})
    edited = load(export.pipeline(model, edit, tmp_path / "edited"))
    assert edited.default_guidance == 3.0
    told = json.loads((tmp_path / "edited" / "world.json").read_text())["edit"]
    assert told["id"] == edit.id and told["note"]["requests"] == {"cat": "dog"}
    with pytest.raises(ValueError, match="for other weights"):
        edit.apply(edited)
    undo = Edit.of(edited, {n: model.parameter(n) - edited.parameter(n) for n in edit.deltas})
    undo.apply(edited)
    assert torch.allclose(edited.encode(["cat"])[0].embeds, model.encode(["cat"])[0].embeds, atol=1e-5)


def test_an_edit_that_is_on_the_model_is_written_once_and_stays(tmp_path: Path) -> None:
    model = load(tiny_sd())
    edit = quickfix(model, {"cat": "dog"})
    with edit.applied(model):
        export.pipeline(model, edit, tmp_path / "a")
        on_it = model.encode(["cat"])[0].embeds
    export.pipeline(model, edit, tmp_path / "b")
    for name in ("a", "b"):
        assert torch.equal(load(tmp_path / name).encode(["cat"])[0].embeds, on_it)


def test_half_precision_stays_half(tmp_path: Path) -> None:
    model = load(tiny_sd().to(dtype=torch.bfloat16))
    edit = quickfix(model, {"cat": "dog"})
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(export.pipeline(model, edit, tmp_path / "half"))
    assert {p.dtype for p in pipe.text_encoder.parameters()} == {torch.bfloat16}


def test_failures_leave_nothing(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch over the session's model sees whether its weights came back."""
    edit, ldm = quickfix(tiny, {"cat": "dog"}), load(tiny_ldm())
    with pytest.raises(ValueError, match="for other weights"):
        export.pipeline(ldm, edit, tmp_path / "a")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there exists"):
        export.pipeline(tiny, edit, tmp_path / "there")

    def full(*_: Any, **__: Any) -> None:
        (tmp_path / "a.part" / "unet").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.pipe, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        export.pipeline(tiny, edit, tmp_path / "a")
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == ["there"]


def test_what_save_pretrained_leaves_is_no_progress_bar(tiny: Any, tmp_path: Path, capfd: Any) -> None:
    export.pipeline(tiny, quickfix(tiny, {"cat": "dog"}), tmp_path / "edited")
    assert "it/s" not in capfd.readouterr().err
