"""What models share is found, and an exported folder is a pipeline for diffusers alone."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import denoscope
from denoscope.models import zoo

PLAIN = """
import sys, torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

torch.set_num_threads(1)
made = {}
for folder in sys.argv[2:]:
    none = {"text_encoder_3": None, "tokenizer_3": None} if "mmdit" in folder else {}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **none)
    pipe.set_progress_bar_config(disable=True)
    told = {"prompt": "a noto emoji of a fox", "guidance_scale": 4.0, "height": 64, "width": 64,
            "max_sequence_length": 24} if "dit" in folder else {}
    if "emoji-dit" in folder:
        told["use_resolution_binning"] = False
    out = pipe(num_inference_steps=2, generator=torch.Generator().manual_seed(5), output_type="np", **told)
    made[folder] = torch.from_numpy(out.images).contiguous()
save_file(made, sys.argv[1])
assert not [name for name in sys.modules if name.startswith("denoscope")]
"""


@pytest.mark.stress
def test_exported_models_paint_the_same_in_diffusers_alone(tmp_path):
    names = ("emoji-dit", "emoji-mmdit", "emoji-people")
    folders = {name: zoo.export(name, tmp_path / name) for name in names}
    assert folders["emoji-dit"] == tmp_path / "emoji-dit"
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "made"), *map(str, folders.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = load_file(tmp_path / "made")
    for name, folder in folders.items():
        model = denoscope.load(name)
        prompt = "a noto emoji of a fox" if model.conditional else ""
        run = denoscope.trace(model, [prompt], seeds=[5], steps=2)
        with torch.no_grad():
            ours = model.decode(run.latents).clamp(0, 1)
        assert torch.equal(ours.permute(0, 2, 3, 1), made[str(folder)])


def test_what_is_exported_is_whole_and_opens_here_too(tmp_path):
    folder = zoo.export("emoji-dit", str(tmp_path / "a" / "b"))
    assert not zoo.shared(folder)
    assert zoo.place(folder, "vae") == folder / "vae" and (folder / "vae").is_dir()
    told, here = (json.loads((f / "world.json").read_text()) for f in (zoo.folder("emoji-dit"), folder))
    assert here == {k: v for k, v in told.items() if k != "shared"}
    assert denoscope.load(folder).default_guidance == 4.0
    for part in ("text_encoder", "tokenizer", "vae"):
        for file in (zoo.folder("emoji") / part).iterdir():
            assert (folder / part / file.name).read_bytes() == file.read_bytes()


def test_export_overwrites_nothing_and_knows_names(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists; name a new folder"):
        zoo.export("emoji", tmp_path / "mine")
    with pytest.raises(LookupError, match="did you mean 'emoji-dit'"):
        zoo.export("emoji-did", tmp_path / "other")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def test_a_part_shared_within_a_model_lies_in_its_own_folder(tmp_path):
    (tmp_path / "world.json").write_text(json.dumps({"shared": {"b": "a", "vae": "emoji/vae"}}))
    assert zoo.shared(tmp_path) == {"b": tmp_path / "a", "vae": zoo.folder("emoji") / "vae"}
    assert zoo.place(tmp_path, "a") == tmp_path / "a"
