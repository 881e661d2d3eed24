"""Folders: every weight is accounted for, and what is refused is refused for the right reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from denoscope.models.synthetic.tiny_families import (
    tiny_dit,
    tiny_flux,
    tiny_ldm,
    tiny_pixart_sigma,
    tiny_sana,
    tiny_sd3,
    tiny_sdxl,
)

LORA = LoraConfig(r=2, target_modules=["q_proj", "to_q"], init_lora_weights=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_sd().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, part: str, to: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = next((folder / part).glob("*.safetensors"))
    weights = load_file(path)
    to(weights)
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_folder_with_a_weight_missing_is_refused(folder: Path, part: str, tmp_path: Path) -> None:
    """Whatever the weight is: libraries leave some in uninitialised memory, others get plausible values."""
    whole = shutil.copytree(folder, tmp_path / "whole")
    names = sorted(load_file(next((folder / part).glob("*.safetensors"))))
    for name in names[:: max(1, len(names) // 8)]:
        change(folder, part, lambda weights, name=name: weights.pop(name))
        with pytest.raises(
            ValueError, match=rf"could not open .*model': {part} lacks 1 of its weights \(.*random"
        ):
            load(folder)
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
    load(folder)


MAKERS = [tiny_sdxl, tiny_sd3, tiny_flux, tiny_pixart_sigma, tiny_sana, tiny_dit, tiny_ldm, tiny_ddpm]


@pytest.mark.parametrize("make", MAKERS)
def test_so_are_those_of_other_families_in_every_network(make: Callable[[], Any], tmp_path: Path) -> None:
    pipe, folder = make(), tmp_path / "model"
    pipe.save_pretrained(folder)
    load(folder)
    for part in (k for k, m in pipe.components.items() if isinstance(m, torch.nn.Module)):
        path = next((folder / part).glob("*.safetensors"))
        whole = path.read_bytes()
        change(folder, part, lambda weights: weights.pop(sorted(weights)[len(weights) // 2]))
        with pytest.raises(ValueError, match=f"{part} lacks 1 of its weights"):
            load(folder)
        path.write_bytes(whole)


def test_weights_without_a_place_are_refused(folder: Path) -> None:
    """The configuration has fewer layers than the file: another model, without a word."""
    change(folder, "unet", lambda weights: weights.update({"mid_block.more.weight": torch.ones(2)}))
    with pytest.raises(
        ValueError, match=r"unet has 1 weights that its configuration has no place for \(mid_block"
    ):
        load(folder)


def test_what_older_files_hold_beside_weights_is_no_fault(folder: Path) -> None:
    ids = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    change(folder, "text_encoder", lambda weights: weights.update(ids))
    load(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    name = "conv_in.bias"
    change(folder, "unet", lambda weights: weights.update({name: torch.ones(3)}))
    with pytest.raises(ValueError, match=r"could not open .*: unet: .*conv_in\.bias"):
        load(folder)


def test_a_network_that_is_gone_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    with pytest.raises(ValueError, match="unet has no weights in .*unet'; give a folder that is whole"):
        load(folder)


def test_a_damaged_file_is_named_and_other_faults_are_not_blamed_on_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"unet: .*model\.safetensors is truncated or damaged\)"):
        load(folder)
    path.write_bytes(whole)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="could not open .*: unet: ") as caught:
        load(folder)
    assert "safetensors" not in str(caught.value)
    (folder / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"model_index\.json is nested too deep"):
        load(folder)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model_index\.json lacks _class_name"):
        load(folder)


def test_variants_alone_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder)
    other = tiny_sd(seed=1)
    other.save_pretrained(folder, variant="fp16")
    with pytest.raises(ValueError, match=r"has weights of variants alone \(fp16\); give variant='fp16'"):
        load(folder)
    assert torch.equal(load(folder, variant="fp16").pipe.unet.conv_in.weight, other.unet.conv_in.weight)


def test_variants_in_several_files_are_found(folder: Path) -> None:
    tiny_sd(seed=1).unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="20KB")
    assert len(list((folder / "unet").glob("*fp16-0*-of-*.safetensors"))) > 1
    model = load(folder, variant="fp16")
    assert torch.equal(model.pipe.unet.conv_in.weight, tiny_sd(seed=1).unet.conv_in.weight)
    assert torch.equal(model.pipe.vae.encoder.conv_in.weight, tiny_sd().vae.encoder.conv_in.weight)
    next((folder / "unet").glob("*fp16-00002*")).unlink()
    with pytest.raises(ValueError, match="could not open .*: unet: "):
        load(folder, variant="fp16")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_lora_saved_inside_a_folder_is_named(part: str, tmp_path: Path) -> None:
    pipe = tiny_sd()
    getattr(pipe, part).add_adapter(LORA)
    pipe.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"{part} was saved .*LoRA.*pipe.fuse_lora\(\)"):
        load(tmp_path / "model")


def test_a_lora_is_no_model(folder: Path, tmp_path: Path) -> None:
    save_file({"unet.mid.to_q.lora_A.weight": torch.ones(2)}, tmp_path / "pytorch_lora_weights.safetensors")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "peft"):
        with pytest.raises(
            ValueError, match=r"is a LoRA, which is no model of its own; .*load_lora_weights\("
        ):
            load(path)
    with pytest.raises(
        ValueError, match="is one network alone, without model_index.json; give the folder of the"
    ):
        load(folder / "unet")


def test_a_lora_beside_a_model_is_not_left_out_without_a_word(folder: Path, caplog: Any) -> None:
    load(folder)
    assert not caplog.text
    save_file({"unet.mid.to_q.lora_A.weight": torch.ones(2)}, folder / "pytorch_lora_weights.safetensors")
    load(folder)
    assert "pytorch_lora_weights.safetensors of " in caplog.text and "is not loaded" in caplog.text


def test_a_safety_checker_is_neither_read_nor_missed(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load(folder).pipe.safety_checker is None


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.filterwarnings("ignore")
def test_a_folder_is_opened_in_the_format_that_is_asked_for(make: Any, tmp_path: Path) -> None:
    """T5 keeps some weights in float32, as transformers wants it; no denoiser here does."""
    make().save_pretrained(tmp_path)
    model = load(tmp_path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.bfloat16}
