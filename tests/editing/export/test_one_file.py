"""Checkpoints of one file: opened again by diffusers' own converters, and compared to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from denoscope import Edit, load
from denoscope.editing import export, quickfix
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3
from tests.editing.export.others import edit_of, furthest, seen
from tests.models.opening.test_one_file import two_clips_sd3, two_clips_sdxl, without_weights


def tiny_sd2() -> Any:
    """Stable Diffusion 2: OpenCLIP for its text, linear projections around the attention."""
    pipe = tiny_sd()
    config = CLIPTextConfig(**{**pipe.text_encoder.config.to_dict(), "hidden_act": "gelu"})
    torch.manual_seed(5)
    pipe.text_encoder = CLIPTextModel(config).eval()
    unet = type(pipe.unet).from_config({**pipe.unet.config, "use_linear_projection": True})
    pipe.unet = unet.eval()
    return pipe


FAMILIES = {
    "sd": (tiny_sd, ("unet", "text_encoder", "vae"), "cond_stage_model.transformer.text_model."),
    "sd2": (tiny_sd2, ("unet", "text_encoder"), "cond_stage_model.model.transformer.resblocks."),
    "sdxl": (
        two_clips_sdxl,
        ("unet", "text_encoder", "text_encoder_2", "vae"),
        "conditioner.embedders.1.model.transformer.resblocks.",
    ),
    "sd3": (
        two_clips_sd3,
        ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"),
        "model.diffusion_model.joint_blocks.",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_from_single_file_opens_the_edited_model_to_the_bit(family: str, tmp_path: Path) -> None:
    make, parts, key = FAMILIES[family]
    model, path = load(make()), tmp_path / "edited.safetensors"
    without_weights(model.pipe, tmp_path / "config")
    before, edit = seen(model), edit_of(model, parts)
    assert export.checkpoint(model, edit, path) == path
    with safe_open(path, "pt") as file:
        assert any(name.startswith(key) for name in file.keys())  # noqa: SIM118 - no dictionary
    pipe: Any = type(model.pipe).from_single_file(
        str(path), config=str(tmp_path / "config"), dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    ours = load(path, config=tmp_path / "config")
    with edit.applied(model):
        after = seen(model)
        for part, network in model.components.items():
            for opened in (load(pipe), ours):
                state = opened.components[part].state_dict()
                assert all(torch.equal(state[n], w) for n, w in network.state_dict().items()), part
        assert set(furthest(seen(ours), after).values()) == {0.0}
    assert furthest(before, after)["picture"] > 0.01
    assert set(furthest(before, seen(model)).values()) == {0.0}


def test_half_precision_stays_half(tmp_path: Path) -> None:
    model = load(tiny_sd().to(dtype=torch.float16))
    path = export.checkpoint(model, quickfix(model, {"cat": "dog"}), tmp_path / "half.safetensors")
    assert {weight.dtype for weight in load_file(path).values()} == {torch.float16}


def test_without_t5_its_weights_are_left_out(tmp_path: Path) -> None:
    pipe = two_clips_sd3()
    pipe.text_encoder_3 = pipe.tokenizer_3 = None
    model = load(pipe)
    path = export.checkpoint(model, edit_of(model, ["transformer"], "to_q"), tmp_path / "a.safetensors")
    assert not any("t5xxl" in name for name in load_file(path))


def test_a_projection_that_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    """diffusers takes the first encoder's projection for the identity, whatever the file says."""
    model = load(tiny_sd3())
    with pytest.raises(ValueError, match=r"text_encoder.text_projection is no identity.*export.pipeline"):
        export.checkpoint(model, edit_of(model, ["transformer"], "to_q"), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [tiny_flux, tiny_pixart_alpha])
def test_families_without_such_a_file_are_refused(make: Any, tmp_path: Path) -> None:
    model = load(make())
    with pytest.raises(ValueError, match=r"Pipeline has no layout of one file; StableDiffusion, .* have"):
        export.checkpoint(model, edit_of(model, ["transformer"], "to_q"), tmp_path / "a.safetensors")


def test_weights_without_a_place_are_refused_by_name(tmp_path: Path) -> None:
    pipe = tiny_sd()
    pipe.unet.time_embedding.cond_proj = torch.nn.Linear(4, 8, bias=False)  # a UNet distilled from guidance
    model = load(pipe)
    with pytest.raises(
        ValueError, match=r"unet.time_embedding.cond_proj.weight has no place in the original"
    ):
        export.checkpoint(model, quickfix(model, {"cat": "dog"}), tmp_path / "a.safetensors")
    other = load(tiny_sd())
    other.pipe.vae = diffusers.AutoencoderTiny(in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match="vae of .* is a AutoencoderTiny, and the layout .* AutoencoderKL"):
        export.checkpoint(other, quickfix(other, {"cat": "dog"}), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_failures_leave_the_older_file(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, edit = tmp_path / "a.safetensors", quickfix(tiny, {"cat": "dog"})
    path.write_bytes(b"older")

    def full(state: Any, file: Path) -> None:
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("denoscope.editing.export.one_file.save_file", full)
    with pytest.raises(OSError, match="No space left on device.*a.safetensors"):
        export.checkpoint(tiny, edit, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]
    monkeypatch.undo()
    export.checkpoint(tiny, edit, path)
    assert len(load_file(path)) > 100
    with pytest.raises(ValueError, match=r"a.ckpt'; checkpoints end with .safetensors"):
        export.checkpoint(tiny, edit, tmp_path / "a.ckpt")


def test_the_edit_must_be_the_models(tmp_path: Path) -> None:
    model, other = load(tiny_sd()), load(tiny_sd(seed=1))
    name = "unet.conv_in.weight"
    edit = Edit.of(other, {name: torch.ones_like(other.parameter(name))})
    with pytest.raises(ValueError, match="for other weights"):
        export.checkpoint(model, edit, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
