"""What values show in a notebook: escaped, small, without scripts, whatever is in them."""

import re

import pytest
import torch

import denoscope
from denoscope import Direction, Edit
from denoscope.analysis.scores import Scores
from denoscope.models import zoo
from denoscope.models.html import panel, pictures, table
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.trace import Trace

EVIL = "<script>alert('x')</script> & \"a cat\""
SITE = "unet/mid.attn.0.0/cross_attn.out"
RUN = {"steps": 1, "sites": "unet/**"}


def harmless(shown):
    """Well-formed, below 100 kB, and nothing in it that runs or is fetched."""
    assert len(shown) < 100_000
    assert "<script" not in shown.lower() and not re.search(r"\bon\w+\s*=\s*[\"']", shown)
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)", shown)
    assert not re.search(r"(?<!-)color:|background", shown)  # readable on dark pages and light ones
    for tag in ("table", "tr", "td", "th", "div", "strong"):
        assert len(re.findall(f"<{tag}[ >]", shown)) == shown.count(f"</{tag}>"), tag
    return True


@pytest.fixture(scope="module")
def run(tiny):
    return denoscope.trace(tiny, [EVIL[:24], "a dog"], seeds=[0, 1], **RUN)


def test_a_model_shows_its_parts(tiny):
    shown = tiny._repr_html_()
    assert harmless(shown)
    for part in ("UNet2DConditionModel", "CLIPTextModel", "DDIMScheduler", "16 x 16 pixels", "4 x 8 x 8"):
        assert part in shown
    n = sum(p.numel() for p in tiny.denoiser.parameters())
    assert f"{n:,}" in shown
    evil = load(tiny_sd())
    evil.name = EVIL
    assert harmless(evil._repr_html_()) and "&lt;script&gt;" in evil._repr_html_()


def test_a_trace_shows_pictures_prompts_and_sites(run):
    shown = run._repr_html_()
    assert harmless(shown) and shown.count("<img") == 2
    assert "&lt;script&gt;" in shown and "a dog" in shown
    first = next(iter(run))
    assert str(first) in shown and " x ".join(map(str, run[first].shape)) in shown
    assert f"... {len(run) - 40} more" in shown


def test_a_trace_decodes_four_pictures_at_most_and_never_without_its_model(tiny, tmp_path):
    many = denoscope.trace(tiny, ["a cat"] * 6, seeds=range(6), steps=1)
    decoded = []
    object.__setattr__(
        many, "_decode", lambda x: decoded.append((len(x), torch.is_grad_enabled())) or tiny.decode(x)
    )
    assert many._repr_html_().count("<img") == 4 and decoded == [(4, False)]
    many.save(tmp_path / "run")
    alone = Trace.load(tmp_path / "run")
    assert harmless(alone._repr_html_()) and "<img" not in alone._repr_html_()
    big = denoscope.load(tiny_sd(), size=(128, 128))
    dear = denoscope.trace(big, ["a cat"], seeds=[0], steps=1)
    assert "<img" not in dear._repr_html_()  # until somebody has asked for them
    assert dear.images.shape[-1] == 128 and dear._repr_html_().count("<img") == 1


def test_an_edit_and_a_direction_show_themselves(tiny):
    deltas = {n: torch.ones_like(p) for n, p in tiny.weights(SITE).items()}
    edit = Edit.of(tiny, deltas, method=EVIL)
    assert harmless(edit._repr_html_())
    assert all(name in edit._repr_html_() for name in deltas) and "&lt;script&gt;" in edit._repr_html_()
    d = Direction({SITE: 2 * torch.ones(16), "text_encoder/layer.0/mlp.out": torch.ones(4)})
    shown = d._repr_html_()
    assert harmless(shown) and SITE in shown and ">16<" in shown and ">8<" in shown and ">2<" in shown


def test_scores_show_the_best_places():
    import xarray as xr

    values = xr.DataArray(
        torch.arange(150.0).view(50, 3).numpy(),
        dims=("site", "seed"),
        coords={"site": [f"unet/down.{i}/out" for i in range(50)], "seed": [0, 1, 2]},
    )
    shown = Scores(values)._repr_html_()
    assert harmless(shown) and "... 10 more" in shown
    assert shown.index("unet/down.49/out<") < shown.index("unet/down.48/out<") and ">148<" in shown


def test_the_worst_pictures_stay_small():
    noise = torch.rand(9, 3, 640, 1024, generator=torch.Generator().manual_seed(0))
    shown = panel("noise", pictures(noise, [EVIL] * 9), table(["a"], [[EVIL * 50]] * 1000))
    assert harmless(shown) and shown.count("<img") == 4
    assert harmless(panel(EVIL, pictures(torch.full((1, 1, 3, 5), float("nan")), ["grey"])))


def test_values_with_tensors_show_shapes_in_a_line(tiny):
    (first, *_) = tiny.sample(["a cat"], seeds=[3], steps=2)
    shown = repr(first)
    assert shown.startswith("State(") and "\n" not in shown and "tensor(" not in shown
    assert f"latents=float32{list(first.latents.shape)}" in shown
    assert f"'cond': float32{list(first.outputs['cond'].shape)}" in shown
    assert "noise_states=(uint8[" in repr(tiny.start([3], 2))
    assert "masks=bool[" in repr(zoo.data().scenes[0])
