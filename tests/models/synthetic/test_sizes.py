"""Full-size configurations: as many parameters and attentions as the published models have."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from denoscope.models.load import load
from denoscope.models.sites import site_shapes
from denoscope.models.synthetic.published import PUBLISHED
from denoscope.models.synthetic.sizes import costs, full_size
from denoscope.models.synthetic.tiny import tiny_sd

# parameters of the denoiser in millions, as published; attentions that read text; one site's shape
KNOWN = [
    (
        "sd-1.5",
        859.5,
        "unet/**/cross_attn.probs",
        16,
        ("unet/down.0.attn.0.0/cross_attn.probs", (8, 4096, 77)),
    ),
    ("sd-2.1", 865.9, "unet/**/cross_attn.probs", 16, ("unet/mid.attn.0.0/cross_attn.out", (144, 1280))),
    ("sdxl", 2567.5, "unet/**/cross_attn.probs", 70, ("unet/mid.attn.0.9/cross_attn.out", (1024, 1280))),
    (
        "pixart-sigma",
        610.9,
        "**/cross_attn.probs",
        28,
        ("transformer/block.0/cross_attn.probs", (16, 4096, 300)),
    ),
    ("sd3-medium", 2028.3, "**/joint_attn.probs", 24, ("transformer/block.0/joint_attn.z", (24, 4429, 64))),
    ("flux-dev", 11901.4, "**/joint_attn.probs", 57, ("transformer/single.37/attn_mlp.out", (4608, 3072))),
    # its published configuration; authors and model cards say 1.6B
    (
        "sana-1.6b",
        1604.5,
        "transformer/**/cross_attn.probs",
        20,
        ("transformer/block.0/cross_attn.probs", (20, 1024, 300)),
    ),
    # 675 as published, and 27 more embedders of time and class: diffusers gives each block its own
    ("dit-xl-2", 749.8, "**/self_attn.probs", 28, ("transformer/block.27/mlp.act", (256, 4608))),
    (
        "ldm-text2im",
        872.3,
        "unet/**/cross_attn.probs",
        16,
        ("unet/mid.attn.0.0/cross_attn.probs", (8, 16, 77)),
    ),
    ("ddpm-cifar10", 35.7, "unet/**/self_attn.probs", 6, ("unet/mid.attn.0/self_attn.probs", (1, 16, 16))),
]


LARGE = 2000  # millions; even without weights they take seconds
QUICK = [pytest.param(*k, marks=pytest.mark.stress) if k[1] > LARGE else k for k in KNOWN]


def test_every_configuration_is_checked():
    assert [name for name, *_ in KNOWN] == list(PUBLISHED)


@pytest.mark.parametrize(("name", "millions", "pattern", "number", "site"), QUICK)
def test_as_large_as_published(name, millions, pattern, number, site):
    model = full_size(name)
    assert sum(p.numel() for p in model.denoiser.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert all(p.is_meta for part in model.components.values() for p in part.parameters())
    assert len(model.sites(pattern)) == number
    table = costs(model)
    assert len(table) == len(model.sites()) and table.loc[site[0], "shape"] == site[1]
    assert table.loc[site[0], "megabytes"] == pytest.approx(2 * math.prod(site[1]) / 1e6)


def test_shapes_are_those_of_a_run():
    model = load(tiny_sd())
    shapes = site_shapes(model)
    assert set(shapes) == set(model.sites())
    assert shapes[model.input_site] == (8, 8, 8)


def test_an_unknown_configuration_names_near_misses():
    with pytest.raises(LookupError, match=r"no configuration 'sd1\.5'; did you mean 'sd-1\.5'"):
        full_size("sd1.5")


@pytest.mark.stress
def test_a_step_of_full_size_is_traced():
    """Stable Diffusion 1.5 with random weights, in a process of its own: it takes 3 to 5 GB."""
    script = Path(__file__).parents[3] / "benchmarks" / "full_size.py"
    command = [sys.executable, str(script), "sd-1.5", "--child", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own script
    found = json.loads(done.stdout.splitlines()[-1])
    table = costs(full_size("sd-1.5"), bytes_per_number=found["bytes"])
    kept = table[(table["component"] == "unet") & (table["kind"] == "cross_attn.out")]
    assert found["sites"] == len(kept) == 16
    assert found["kept"] == pytest.approx(1e6 * kept["megabytes"].sum())
