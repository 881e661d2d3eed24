"""Opening models: names, folders, pipelines; and every way it can be wrong."""

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd


@pytest.fixture
def folder(tmp_path):
    tiny_sd().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_opens_and_generates_the_same(folder):
    a, b = load(folder), load(tiny_sd())
    with torch.no_grad():
        final = [list(m.sample(["a cat"], seeds=[0], steps=2))[-1].latents for m in (a, b)]
    assert torch.equal(*final)


def test_a_pipeline_object_is_held_not_copied():
    pipe = tiny_sd()
    assert load(pipe).pipe is pipe and load(tiny_ddim()).conditional is False


def test_the_dtype_is_honoured(folder):
    assert load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["emojy", "no-such-model", "./nowhere"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(LookupError, match="emoji"):
        load(name)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model_index\.json"):
        load(tmp_path)


def test_truncated_weights_are_refused(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="could not open"):
        load(folder)


def test_pickled_weights_are_refused(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="pickled"):
        load(folder)


def test_nan_weights_are_refused():
    pipe = tiny_sd()
    with torch.no_grad():
        pipe.unet.conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"unet\.conv_in\.weight holds NaN"):
        load(pipe)


def test_unsupported_pipelines_list_the_supported():
    class OtherPipeline:
        components: dict = {}

    with pytest.raises(ValueError, match=r"OtherPipeline is not supported.*StableDiffusionPipeline"):
        load(OtherPipeline())


def test_an_unconditional_model_takes_no_prompt():
    with pytest.raises(ValueError, match="reads no prompt"):
        load(tiny_ddim()).encode(["a cat"])


def test_a_refused_scheduler_is_refused_at_once():
    pipe = tiny_sd()
    pipe.scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(ValueError, match="EDMEulerScheduler is not supported"):
        load(pipe)


def test_the_embedded_model_is_a_plain_pipeline(emoji):
    assert isinstance(emoji.pipe, diffusers.StableDiffusionPipeline) and emoji.name == "emoji"
    assert emoji.default_guidance > 1
