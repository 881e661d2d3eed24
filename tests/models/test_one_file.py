"""Checkpoints of one file, and paths that must never be taken for hub ids."""

import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from denoscope.models import one_file
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import (
    tiny_flux,
    tiny_pixart_sigma,
    tiny_sana,
    tiny_sd3,
    tiny_sdxl,
)
from denoscope.models.synthetic.tiny_text import tiny_clip, tiny_t5
from tests.models.ldm_layout import write_ldm
from tests.models.original_layouts import write_sd3, write_sdxl


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of one file, and the folder of configurations without weights."""
    where = tmp_path_factory.mktemp("saved")
    pipe = tiny_sd()
    pipe.save_pretrained(where / "config")
    write_ldm(pipe, where / "model.safetensors")
    for weights in (where / "config").rglob("*.safetensors"):
        weights.unlink()
    return where


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing may be asked of the hub."""

    def refuse(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("diffusers.loaders.single_file._download_diffusers_model_config_from_hub", refuse)


def test_a_checkpoint_of_one_file_equals_the_pipeline_it_was_written_from(saved):
    a = load(saved / "model.safetensors", config=saved / "config")
    b = load(tiny_sd())
    assert {k: list(m.state_dict()) for k, m in a.components.items()} == {
        k: list(m.state_dict()) for k, m in b.components.items()
    }
    for part, module in b.components.items():
        own = a.components[part].state_dict()
        assert all(torch.equal(own[k], v) for k, v in module.state_dict().items()), part
    with torch.no_grad():
        final = [list(m.sample(["a cat"], seeds=[3], steps=2))[-1].latents for m in (a, b)]
        assert torch.equal(*final)
        assert torch.equal(a.decode(final[0]), b.decode(final[1]))


def wider_clip(tokenizer):
    """By their widths the converters tell two CLIPs in one file apart."""
    config = CLIPTextConfig(
        **{**tiny_clip(tokenizer).config.to_dict(), "hidden_size": 24, "projection_dim": 24}
    )
    return CLIPTextModelWithProjection(config).eval()


def two_clips_sdxl():
    pipe = tiny_sdxl()
    pipe.text_encoder_2 = wider_clip(pipe.tokenizer_2)
    config = {**pipe.unet.config, "cross_attention_dim": 40, "projection_class_embeddings_input_dim": 72}
    pipe.unet = type(pipe.unet).from_config(config).eval()
    return pipe


def two_clips_sd3():
    pipe = tiny_sd3()
    pipe.text_encoder_2 = wider_clip(pipe.tokenizer_2)
    pipe.text_encoder.text_projection.weight.data = torch.eye(16)  # as published, and as the converter says
    pipe.text_encoder_3 = tiny_t5(pipe.tokenizer_3, 40).eval()
    config = {**pipe.transformer.config, "joint_attention_dim": 40, "pooled_projection_dim": 40}
    pipe.transformer = type(pipe.transformer).from_config(config).eval()
    return pipe


def without_weights(pipe, folder):
    pipe.save_pretrained(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()


@pytest.mark.parametrize(
    ("make", "write"), [(two_clips_sdxl, write_sdxl), (two_clips_sd3, write_sd3)], ids=["sdxl", "sd3"]
)
def test_other_families_equal_the_pipeline_they_were_written_from(make, write, tmp_path):
    pipe = make()
    without_weights(pipe, tmp_path / "config")
    write(pipe, tmp_path / "m.safetensors")
    a, b = load(tmp_path / "m.safetensors", config=tmp_path / "config"), load(pipe)
    for part, module in b.components.items():
        own = a.components[part].state_dict()
        assert all(torch.equal(own[k], v) for k, v in module.state_dict().items()), part
    if "sd3" in make.__name__:
        a.t5_tokens = b.t5_tokens = 24
    with torch.no_grad():
        assert torch.equal(*[list(m.sample(["a cat"], seeds=[3], steps=1))[-1].latents for m in (a, b)])
    state = load_file(tmp_path / "m.safetensors")
    gone = next(k for k in reversed(state) if k.startswith("model.diffusion_model"))
    save_file({k: v for k, v in state.items() if k != gone}, tmp_path / "less.safetensors")
    with pytest.raises(
        ValueError, match="lacks weights that this config asks for: [^:]*(linear|ff|attn|mlp|blocks)"
    ):
        load(tmp_path / "less.safetensors", config=tmp_path / "config")


@pytest.mark.parametrize("make", [tiny_pixart_sigma, tiny_sana], ids=["pixart", "sana"])
def test_families_that_diffusers_reads_from_no_file_are_refused_by_name(make, tmp_path, saved):
    make().save_pretrained(tmp_path / "config")
    with pytest.raises(
        ValueError, match=r"(PixArtSigma|Sana)Pipeline of config .* has no layout of one file"
    ):
        load(saved / "model.safetensors", config=tmp_path / "config")


def test_a_file_of_the_transformer_alone_is_refused_by_the_part_that_it_lacks(tmp_path):
    """As FLUX.1 is published; its converter takes 3,072 channels for granted, so no tiny one opens."""
    tiny_flux().save_pretrained(tmp_path / "config")
    torch.manual_seed(0)
    save_file({"double_blocks.0.img_mod.lin.weight": torch.randn(4, 4)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="could not open .* as a FluxPipeline .*: Failed to load CLIP"):
        load(tmp_path / "m.safetensors", config=tmp_path / "config")


EXTRA = {
    "a LoRA baked beside": "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
    "another text encoder": "text_encoders.t5xxl.transformer.shared.weight",
    "one block more": "model.diffusion_model.output_blocks.9.0.in_layers.2.weight",
    "another layer": "model.diffusion_model.middle_block.1.gate.weight",
}


@pytest.mark.parametrize("name", EXTRA.values(), ids=EXTRA)
def test_weights_that_have_no_place_are_refused_by_name(saved, tmp_path, name):
    state = load_file(saved / "model.safetensors")
    torch.manual_seed(0)
    save_file({**state, name: torch.randn(8, 8)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=rf"has no place: {name};.*LoRA"):
        load(tmp_path / "m.safetensors", config=saved / "config")


def test_what_training_left_in_a_file_is_no_fault(saved, tmp_path):
    state = load_file(saved / "model.safetensors")
    more = {
        "model_ema.diffusion_modeltime_embed0weight": torch.randn(8, 8),
        "alphas_cumprod": torch.rand(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(32)[None],
    }
    save_file({**state, **more}, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors", config=saved / "config", dtype=torch.float16)


def test_the_dtype_is_honoured(saved):
    assert (
        load(saved / "model.safetensors", config=saved / "config", dtype=torch.float16).dtype == torch.float16
    )


LAST = {
    "model.diffusion_model": "time_embedding.linear_2",
    "first_stage_model": "quant_conv",
    "cond_stage_model": ".*norm",
}


@pytest.mark.parametrize("part", LAST)
def test_a_file_that_lacks_a_weight_is_refused(saved, tmp_path, part):
    state = load_file(saved / "model.safetensors")
    del state[next(k for k in reversed(state) if k.startswith(part))]
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=rf"lacks weights that this config asks for: {LAST[part]}"):
        load(tmp_path / "m.safetensors", config=saved / "config")


def test_a_file_of_another_shape_is_refused(saved, tmp_path):
    state = load_file(saved / "model.safetensors")
    state["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(3, 4, 3, 3)
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="could not open"):
        load(tmp_path / "m.safetensors", config=saved / "config")


def test_without_a_config_the_error_says_which_to_give(saved, monkeypatch, tmp_path):
    def nothing_cached(repo, *, local_files_only):
        assert local_files_only
        raise one_file.LocalEntryNotFoundError(repo)

    monkeypatch.setattr(one_file, "snapshot_download", nothing_cached)
    with pytest.raises(ValueError, match=r"of 'stable-diffusion-v1-5/.*load\('model.safetensors', config="):
        load(saved / "model.safetensors")
    monkeypatch.setattr(one_file, "snapshot_download", lambda *_, **__: str(saved / "config"))
    assert load(saved / "model.safetensors").name.endswith("model.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"could not open .*broken"):
        load(tmp_path / "broken.safetensors")


def test_a_config_that_is_no_folder_of_a_model_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        load(saved / "model.safetensors", config=tmp_path)


def test_a_config_with_pickled_weights_is_refused(saved, tmp_path):
    shutil.copytree(saved / "config", tmp_path / "config")
    (tmp_path / "config" / "text_encoder" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled weights in"):
        load(saved / "model.safetensors", config=tmp_path / "config")


def test_without_accelerate_it_is_refused(saved, monkeypatch):
    monkeypatch.setattr(one_file.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install accelerate"):
        load(saved / "model.safetensors", config=saved / "config")


@pytest.mark.parametrize("suffix", one_file.PICKLES)
def test_pickles_are_refused_unread(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"never read")
    with pytest.raises(ValueError, match="pickled weights"):
        load(path)


@pytest.mark.parametrize("name", ["model.CKPT", "model.gguf", "model"])
def test_other_files_are_refused_unread_too(tmp_path, name):
    (tmp_path / name).write_bytes(b"never read")
    with pytest.raises(ValueError, match=f"{name}' is no safetensors file"):
        one_file.read_file(tmp_path / name, None, torch.float32)


def test_the_converters_are_told_not_to_ask_the_hub(saved, monkeypatch):
    told = {}
    real = diffusers.StableDiffusionPipeline.from_single_file

    def noted(path, **options):
        told.update(options)
        return real(path, **options)

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_single_file", noted)
    load(saved / "model.safetensors", config=saved / "config")
    assert told["local_files_only"] is True and told["config"] == str(saved / "config")


@pytest.mark.parametrize("name", ["models/sd.safetensors", "./owner/name", "../name", "~/owner", "x/m.ckpt"])
def test_a_path_to_nothing_is_never_a_hub_id(name, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LookupError, match="there is no file"):
        load(name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./owner", True),
        ("../owner/name", True),
        ("/owner", True),
        ("~owner", True),
        (".\\owner", True),
        ("..\\owner", True),
        ("owner/name.SafeTensors", True),
        ("x.pth", True),
        ("owner/name", False),
        (".owner/name", False),
        ("owner/safetensors", False),
        ("name.pt.x", False),
    ],
)
def test_names_that_can_only_be_paths(name, path):
    assert one_file.looks_like_path(name) == path


def test_paths_are_looked_up_from_home_and_in_folders_that_are_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").mkdir()
    assert one_file.checked_path("~/empty") == tmp_path / "empty"
    with pytest.raises(LookupError, match=r"no file 'm\.pt' in '.*empty'; that folder is empty"):
        one_file.checked_path("~/empty/m.pt")
    with pytest.raises(LookupError, match=r"no file '~/none/m\.pt': its folder '.*none' does not exist"):
        one_file.checked_path("~/none/m.pt")


def test_the_config_is_looked_up_from_home_and_is_of_a_pipeline_that_has_such_files(
    saved, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(saved))
    assert load(saved / "model.safetensors", config="~/config").conditional
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(
        ValueError, match="DDPMPipeline of config .* has no layout of one file; give the whole"
    ):
        load(saved / "model.safetensors", config=tmp_path)


def test_a_config_with_weights_of_both_kinds_is_taken(saved, tmp_path):
    shutil.copytree(saved / "config", tmp_path / "config")
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / "config" / "text_encoder" / name).write_bytes(b"never read")
    assert load(saved / "model.safetensors", config=tmp_path / "config").conditional


def test_a_missing_file_names_near_misses(saved):
    with pytest.raises(LookupError, match=r"did you mean 'model\.safetensors'"):
        load(saved / "modle.safetensors")
