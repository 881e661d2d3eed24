"""``denoscope export``: each format is opened again, and what cannot be is said."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline

import denoscope
from denoscope import Edit
from tests.denoscope.cli.calling import call, one_line


def reads(model):
    with torch.no_grad():
        return model.encode(["a red cat"])[0].embeds


@pytest.mark.parametrize("kind", ["lora", "kohya", "pipeline", "checkpoint"])
def test_every_format_reads_as_the_edit(folder, edited, kind):
    done = call("export", edited, "--model", folder, "--to", kind, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    written = edited.parent / f"edit-{kind}{'' if kind == 'pipeline' else '.safetensors'}"
    assert found["output"] == str(written) and found["format"] == kind and written.exists()
    model = denoscope.load(folder)
    with Edit.load(edited).applied(model):
        wanted = reads(model)
    if kind == "pipeline":
        other = denoscope.load(written)
    elif kind == "checkpoint":
        other = denoscope.load(written, config=folder)
    else:
        pipe = StableDiffusionPipeline.from_pretrained(folder)
        pipe.load_lora_weights(str(written.parent), weight_name=written.name)
        other = denoscope.load(pipe)
        assert found["kept"][0]["energy"] == pytest.approx(1)
    assert torch.allclose(reads(other), wanted, atol=1e-5)
    assert not torch.allclose(wanted, reads(denoscope.load(folder)), atol=1e-3)


def test_it_says_what_a_rank_keeps_and_what_cannot_be(folder, edited, tmp_path):
    run = ["export", edited, "--model", folder]
    shown = call(*run, "--rank", 1)
    assert (
        shown.exit_code == 0
        and "energy" in shown.output
        and "edit-lora.safetensors" in shown.output.replace("\n", "")
    )
    one_line(call(*run), 2, "edit-lora.safetensors")
    assert call(*run, "--force", "--quiet").stdout.strip().endswith("edit-lora.safetensors")
    one_line(call(*run, "--rank", 2, "--to", "pipeline"), 2, "--rank 2 is of LoRAs")
    one_line(call("export", tmp_path / "none.safetensors", "--model", folder), 2, "none.safetensors")
