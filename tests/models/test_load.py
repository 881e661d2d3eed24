"""Opening models: names, folders, pipelines; and every way it can be wrong."""

import json

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


@pytest.mark.parametrize("name", ["emojy", "no-such-model"])
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


@pytest.mark.parametrize("option", [{"revision": "main"}, {"variant": "fp16"}, {"config": "x"}])
def test_options_that_would_do_nothing_are_refused(option, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"")
    sources = [tiny_ddim(), "emoji"]
    sources += [tmp_path / "m.safetensors"] if "config" not in option else ["owner/name"]
    for source in sources:
        with pytest.raises(ValueError, match=f"{next(iter(option))} is .* leave it out"):
            load(source, **option)


@pytest.fixture
def hub(folder, monkeypatch):
    """A hub that has one model, and remembers what was asked of it."""
    asked = []

    def load_config(name, **options):
        asked.append(("index", name, options))
        return json.loads((folder / "model_index.json").read_text())

    def download(name, **options):
        asked.append(("weights", name, options))
        return str(folder)

    monkeypatch.setattr("denoscope.models.opening.hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", staticmethod(load_config))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", staticmethod(download))
    return asked


def test_revision_and_variant_are_handed_on(hub, folder):
    tiny_sd(seed=1).save_pretrained(folder, variant="fp16")
    load("owner/name", revision="v1", variant="fp16")
    (_, name, at), (_, same, given) = hub[:2]
    assert name == same == "owner/name" and at == {"revision": "v1"}
    assert (given["revision"], given["variant"], given["use_safetensors"]) == ("v1", "fp16", True)
    hub.clear()
    load("owner/name")
    assert "revision" not in hub[0][2] and not {"revision", "variant"} & set(hub[1][2])


def test_an_unsupported_class_is_refused_before_its_weights_are_fetched_or_read(hub, folder):
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "KandinskyPipeline"))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    for source in ("owner/name", folder):
        with pytest.raises(ValueError, match=r"^KandinskyPipeline is not supported; supported are Stable"):
            load(source)
    assert [what for what, _, _ in hub] == ["index"]


def test_a_variant_of_a_folder_is_read_and_a_missing_one_is_no_silent_default(folder, tmp_path):
    other = tiny_sd(seed=1)
    other.save_pretrained(folder, variant="fp16")
    assert torch.equal(load(folder, variant="fp16").pipe.unet.conv_in.weight, other.unet.conv_in.weight)
    assert not torch.equal(load(folder).pipe.unet.conv_in.weight, other.unet.conv_in.weight)
    with pytest.raises(ValueError, match=r"no weights of variant 'fp61'.*fp16"):
        load(folder, variant="fp61")
    with pytest.raises(ValueError, match="revision is 'v1'"):
        load(folder, revision="v1")
