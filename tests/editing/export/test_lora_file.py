"""LoRAs: opened again by diffusers' own loaders, and compared with the edit on the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from denoscope import Edit, load
from denoscope.editing import export, quickfix
from denoscope.editing.lowrank import LowRank, dense, factored
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import (
    tiny_flux,
    tiny_pixart_sigma,
    tiny_sana,
    tiny_sd3,
    tiny_sdxl,
)
from tests.editing.export.others import edit_of, furthest, seen

ROUNDING = 2e-4
"""Of numbers of size one, through many layers: float32 factors beside the weight instead of in it."""
LAYER = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
FAMILIES = {
    "sd": (tiny_sd, ("unet", "text_encoder")),
    "sdxl": (tiny_sdxl, ("unet", "text_encoder", "text_encoder_2")),
    "sd3": (tiny_sd3, ("transformer", "text_encoder", "text_encoder_2")),
    "flux": (tiny_flux, ("transformer", "text_encoder")),
}


def reopened(make: Any, path: Path) -> Any:
    """A new pipeline with the LoRA that diffusers reads."""
    pipe = make()
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    return load(pipe)


def compare(make: Any, edit: Edit, path: Path) -> None:
    model = load(make())
    before = seen(model)
    with edit.applied(model):
        after = seen(model)
    found = furthest(seen(reopened(make, path)), after)
    moved = furthest(before, after)
    moved = {name: far for name, far in moved.items() if far > 0}  # FLUX reads CLIP's pooled text alone
    assert len(moved) >= 2 and min(moved.values()) > 50 * ROUNDING, moved
    assert max(found.values()) < ROUNDING, found


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_the_edit_to_rounding(family: str, tmp_path: Path) -> None:
    make, parts = FAMILIES[family]
    model, path = load(make()), tmp_path / "lora.safetensors"
    edit = edit_of(model, parts)
    told = export.lora(model, edit, path)
    assert (
        list(told.index) == list(edit.deltas)
        and set(told["rank"]) == {2, 3}
        and (told.energy > 1 - 1e-12).all()
    )
    compare(make, edit, path)


@pytest.mark.parametrize(
    ("family", "only"), [("sd", ""), pytest.param("sdxl", "", marks=pytest.mark.stress), ("flux", "attn")]
)
def test_kohyas_format_through_diffusers_converter(family: str, only: str, tmp_path: Path) -> None:
    make, parts = FAMILIES[family]
    model, path = load(make()), tmp_path / "kohya.safetensors"
    edit = edit_of(model, parts, only)
    export.lora(model, edit, path, format="kohya")
    compare(make, edit, path)
    state = load_file(path)
    for name in (n for n in state if n.endswith(".alpha")):
        assert state[name] == len(state[name.replace(".alpha", ".lora_down.weight")]) == 3, name


KOHYA = {
    "sd": ("unet.mid_block.attentions.0.proj_in.weight", "lora_unet_mid_block_attentions_0_proj_in"),
    "sd text": (LAYER, "lora_te_text_model_encoder_layers_0_self_attn_out_proj"),
    "sdxl": (
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight",
        "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k",
    ),
    "sdxl text": (LAYER, "lora_te1_text_model_encoder_layers_0_self_attn_out_proj"),
    "sdxl text 2": (
        "text_encoder_2.text_model.encoder.layers.1.mlp.fc1.weight",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
    ),
    "sd3": (
        "transformer.transformer_blocks.0.attn.to_q.weight",
        "lora_transformer_transformer_blocks_0_attn_to_q",
    ),
    "sd3 text 3": (
        "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.weight",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
    ),
    "flux text 2": (
        "text_encoder_2.encoder.block.1.layer.1.DenseReluDense.wo.weight",
        "lora_te3_encoder_block_1_layer_1_DenseReluDense_wo",
    ),
}


@pytest.mark.parametrize("case", KOHYA)
def test_names_of_kohyas_format(case: str, tmp_path: Path) -> None:
    """As A1111, ComfyUI and sd-scripts have them; of 3 and T5 diffusers reads none."""
    (name, wanted), path = KOHYA[case], tmp_path / "k.safetensors"
    model = load(FAMILIES[case.split()[0]][0]())
    weight = model.parameter(name).detach()
    edit = Edit.of(model, {name: -weight})
    export.lora(model, edit, path, format="kohya")
    state = load_file(path)
    assert set(state) == {f"{wanted}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    product = state[f"{wanted}.lora_up.weight"].flatten(1) @ state[f"{wanted}.lora_down.weight"].flatten(1)
    assert torch.allclose(product.reshape(weight.shape), -weight, atol=1e-6)
    assert state[f"{wanted}.alpha"] == len(state[f"{wanted}.lora_down.weight"])


def test_a_rank_too_small_is_told_and_differs(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "lora.safetensors"
    edit = edit_of(model, ("text_encoder",))
    told = export.lora(model, edit, path, rank=1)
    for name, row in told.iterrows():
        values = torch.linalg.svdvals(dense(edit.deltas[str(name)]))
        assert row.energy == pytest.approx(float(values[0] ** 2 / values.square().sum()))
        assert row["rank"] in (2, 3) and row.kept == 1 and row.energy < 0.99
    with edit.applied(model):
        after = seen(model)
    assert furthest(seen(reopened(tiny_sd, path)), after)["embeds"] > 50 * ROUNDING
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["denoscope.lora"])
    assert header["edit"] == edit.id
    assert header["weights"][LAYER] == list(told.loc[LAYER])


def test_an_edit_of_a_method_with_its_factors(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "lora.safetensors"
    edit = quickfix(model, {"cat": "dog"})
    told = export.lora(model, edit, path)
    assert told["rank"].tolist() == edit.to_frame()["rank"].tolist()
    compare_text(model, edit, path)
    again = tmp_path / "again.safetensors"
    export.lora(model, edit, again)
    assert again.read_bytes() == path.read_bytes()


def compare_text(model: Any, edit: Edit, path: Path) -> None:
    with edit.applied(model):
        after = model.encode(["cat"])[0].embeds
    assert torch.allclose(reopened(tiny_sd, path).encode(["cat"])[0].embeds, after, atol=1e-5)


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_a_change_that_is_nothing_is_held_too(format: Any, tmp_path: Path) -> None:
    """``e - e`` has rank 0; its factors are one direction of zeros."""
    model, path = load(tiny_sd()), tmp_path / "lora.safetensors"
    edit = quickfix(model, {"cat": "dog"})
    told = export.lora(model, edit - edit, path, format=format)
    assert told.loc[LAYER].tolist() == [0, 0, 1]
    assert torch.equal(reopened(tiny_sd, path).encode(["cat"])[0].embeds, model.encode(["cat"])[0].embeds)


def test_the_model_is_only_read(tiny: Any, tmp_path: Path) -> None:
    """The watch over the session's model compares its weights afterwards, to the bit."""
    edit = quickfix(tiny, {"cat": "dog"})
    export.lora(tiny, edit, tmp_path / "a.safetensors")
    with edit.applied(tiny):
        export.lora(tiny, edit, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def like(model: Any, name: str) -> Edit:
    return Edit.of(model, {name: torch.ones_like(model.parameter(name))})


REFUSED = {
    "text_encoder.encoder.layers.0.mlp.fc1.bias": "a bias, and factors change weights alone",
    "text_encoder.final_layer_norm.weight": "of a LayerNorm",
    "text_encoder.embeddings.token_embedding.weight": "of a Embedding",
    "vae.decoder.conv_in.weight": "StableDiffusionPipeline reads LoRAs of unet, text_encoder alone",
}


@pytest.mark.parametrize("name", REFUSED)
def test_changes_that_have_no_factors_are_refused_by_name(tiny: Any, name: str, tmp_path: Path) -> None:
    edit = like(tiny, name) + quickfix(tiny, {"cat": "dog"})
    with pytest.raises(ValueError) as caught:
        export.lora(tiny, edit, tmp_path / "lora.safetensors")
    assert f"cannot hold the change of {name} ({REFUSED[name]}); export the pipeline instead" in str(
        caught.value
    )
    assert list(tmp_path.iterdir()) == []


def test_a_convolution_in_groups_and_a_text_projection_are_refused(tmp_path: Path) -> None:
    sana, sd3 = load(tiny_sana()), load(tiny_sd3())
    with pytest.raises(ValueError, match="conv_depth.weight .a convolution in groups"):
        export.lora(sana, edit_of(sana, ["transformer"], "conv_depth"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="text_projection.weight .diffusers gives its factors no rank"):
        export.lora(sd3, like(sd3, "text_encoder.text_projection.weight"), tmp_path / "a.safetensors")


def test_pipelines_that_read_no_loras_are_refused(tmp_path: Path) -> None:
    pixart, sana = load(tiny_pixart_sigma()), load(tiny_sana())
    with pytest.raises(
        ValueError, match=r"PixArtSigmaPipeline has no load_lora_weights; export the pipeline"
    ):
        export.lora(pixart, edit_of(pixart, ["transformer"], "to_q"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"'kohya' has names for StableDiffusion, .* is a SanaPipeline"):
        export.lora(sana, edit_of(sana, ["transformer"], "to_q"), tmp_path / "a.safetensors", format="kohya")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_told(tiny: Any, tmp_path: Path) -> None:
    edit = quickfix(tiny, {"cat": "dog"})
    with pytest.raises(ValueError, match="rank is 0; give 1 or more"):
        export.lora(tiny, edit, tmp_path / "a.safetensors", rank=0)
    with pytest.raises(ValueError, match=r"a.bin'; LoRAs end with .safetensors"):
        export.lora(tiny, edit, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"format is 'peft'; it is 'diffusers' or 'kohya'"):
        export.lora(tiny, edit, tmp_path / "a.safetensors", format="peft")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="nowhere"):
        export.lora(tiny, edit, tmp_path / "nowhere" / "a.safetensors")
    other = load(tiny_sd(seed=1))
    with pytest.raises(ValueError, match="for other weights"):
        export.lora(other, edit, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_lora_beside_its_weights_is_refused(tmp_path: Path) -> None:
    model, path = load(tiny_sd()), tmp_path / "lora.safetensors"
    edit = quickfix(model, {"cat": "dog"})
    export.lora(model, edit, path)
    other = reopened(tiny_sd, path)
    for write in (export.lora, export.pipeline, export.checkpoint):
        with pytest.raises(RuntimeError, match="carries an adapter .*unload_lora_weights"):
            write(other, edit, tmp_path / "more.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["lora.safetensors"]


def test_fused_projections_are_refused(tmp_path: Path) -> None:
    model = load(tiny_sd())
    edit = quickfix(model, {"cat": "dog"})
    model.pipe.fuse_qkv_projections(vae=False)
    with pytest.raises(RuntimeError, match=r"are fused .*pipe.unet.unfuse_qkv_projections\(\)"):
        export.pipeline(model, edit, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_half_precision_gives_the_same_file(tmp_path: Path) -> None:
    model = load(tiny_sd())
    edit = quickfix(model, {"cat": "dog"})
    export.lora(model, edit, tmp_path / "a.safetensors")
    half = load(tiny_sd().to(dtype=torch.bfloat16))
    export.lora(half, edit, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_factors_of_a_change_that_is_dense() -> None:
    g = torch.Generator().manual_seed(0)
    for delta in (torch.randn(6, 4, generator=g), torch.randn(6, 4, 3, 3, generator=g).double()):
        factors, spectrum = factored(delta)
        assert spectrum.rank == min(6, delta[0].numel())
        assert torch.allclose(factors.dense(), delta.double().flatten(1), atol=1e-12)
        few = LowRank(factors.left[:, :2], factors.right[:2]).dense()
        lost = (delta.double().flatten(1) - few).square().sum() / delta.double().square().sum()
        assert spectrum.energy(2) == pytest.approx(1 - float(lost))
