"""The network of docs/adapters.md, which is no diffusers class: it is watched, patched, steered and swept."""

from pathlib import Path

import pytest
import torch

from denoscope.models.check import ModelCheckError, check_model
from denoscope.probes.direction import Direction
from denoscope.probes.intervene import patch, zero
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.test_docs import run_page

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
RUN = {"seeds": [0, 1, 2], "steps": 10}
WORD = "**/word.out"


@pytest.fixture(scope="module")
def series():
    """The trained model, made by the page itself."""
    return run_page(str(PAGE), PAGE.read_text())["series"]


def slope(images):
    return images[:, 16:].mean(1) - images[:, :16].mean(1)


def says(series, word, **more):
    return trace(series, [word] * 3, **RUN, **more)


def test_it_paints_what_it_is_told(series):
    line = torch.linspace(-1, 1, 32)
    shapes = torch.stack([line, -line, (6 * line).sin()])
    painted = torch.stack([says(series, w).images.mean(0) for w in ("rising", "falling", "wave")])
    assert (painted @ shapes.T).argmax(1).tolist() == [0, 1, 2]


def test_the_adapter_holds_with_guidance_and_other_schedulers(series):
    table = check_model(series, ["rising", "wave"])
    assert len(table) == 3 * 2 + 3
    with pytest.MonkeyPatch.context() as swap:
        right = type(series).predict
        swap.setattr(type(series), "predict", lambda self, x, step, p: 1.01 * right(self, x, step, p))
        with pytest.raises(ModelCheckError, match="equals the pipeline"):
            check_model(series, ["rising"])


def test_the_word_goes_through_the_sites_that_are_named_after_it(series):
    other = says(series, "falling", sites=WORD)
    whole = [patch(s, other) for s in series.sites(WORD)]
    assert torch.equal(says(series, "rising", interventions=whole).images, other.images)
    part = says(series, "rising", interventions=whole[:1]).images
    assert slope(part).mean() < slope(says(series, "rising").images).mean()
    nothing = [patch(s, says(series, "rising", sites=WORD)) for s in series.sites(WORD)]
    assert torch.equal(says(series, "rising", interventions=nothing).images, says(series, "rising").images)


def test_steering_moves_the_slope_by_degrees(series):
    rising, falling = (says(series, word, sites=WORD) for word in ("rising", "falling"))
    away = {s: (rising[s] - falling[s]).mean((0, 1)) for s in series.sites(WORD)}
    slopes = []
    for share in (0.0, 0.4, 0.7, 1.0):
        up = [part.steer(share) for part in Direction(away)]
        slopes.append(slope(says(series, "falling", interventions=up).images).mean().item())
    assert slopes == sorted(slopes) and slopes[-1] - slopes[0] > 1.5


def test_a_sweep_equals_single_runs(series):
    sites = list(series.sites("**/mlp.out"))
    swept = sweep(series, [SweepRun("rising", 0, (zero(s),)) for s in sites], steps=4)
    for site, result in zip(sites, swept.latents, strict=True):
        alone = trace(series, ["rising"], seeds=[0], steps=4, interventions=[zero(site)])
        assert torch.allclose(result, alone.latents[0], atol=1e-5)


def test_an_unknown_word_is_refused(series):
    with pytest.raises(LookupError, match="'rises' is no word"):
        says(series, "rises")
