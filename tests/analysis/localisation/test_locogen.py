"""Layers that read another prompt: all of them are that prompt's run, none is the prompt's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from denoscope import load, trace
from denoscope.analysis import locogen
from denoscope.analysis.metrics import Outcome
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_pixart_alpha, tiny_sd3, tiny_sdxl

C, OTHER = "a red cat", "a dog on a mat"
ROUNDING = 1e-4  # shares of order 1; kernels round differently in batches of other sizes


def height(outcome: Outcome) -> Tensor:
    """A linear metric that sees every latent."""
    weights = torch.randn(outcome.latents[0].numel(), generator=torch.Generator().manual_seed(9))
    return outcome.latents.flatten(1).float() @ weights


LONG = [pytest.param(family, marks=pytest.mark.stress) for family in (tiny_sdxl, tiny_flux)]


@pytest.mark.parametrize("family", [None, tiny_pixart_alpha, tiny_sd3, *LONG])
def test_all_layers_are_the_other_prompt(tiny: Any, family: Any) -> None:
    model = load(family()) if family else tiny
    pooled = family in (tiny_sdxl, tiny_sd3, tiny_flux)
    ask: dict[str, Any] = {"seeds": [0, 1], "metric": height, "steps": 2, "guidance": 3.0, "pooled": pooled}
    n = locogen(model, [C], [OTHER], widest=1, **ask).values.sizes["site"]
    found = locogen(model, [C], [OTHER], widest=n, **ask)
    whole = found.values.isel(site=0, window=-1)
    np.testing.assert_allclose(whole, found.denominator, rtol=ROUNDING, atol=ROUNDING)
    assert found.mean().isel(site=0, window=-1) == pytest.approx(1, abs=ROUNDING)
    assert float(abs(found.mean().isel(window=0) - 1).min()) > 10 * ROUNDING  # one layer is not all
    assert int(found.values.isnull().isel(prompt=0, seed=0).sum()) == n * (n - 1) // 2


def test_the_published_windows(tiny: Any) -> None:
    ask: dict[str, Any] = {"seeds": [0], "metric": height, "steps": 2}
    paper = locogen(tiny, [C], [OTHER], settings="paper", **ask).values.isel(window=0)
    grown = locogen(tiny, [C], [OTHER], widest=3, **ask).values
    want = [*grown.sel(window="3").values[:-2], *grown.sel(window="1").values[-2:]]
    np.testing.assert_allclose(paper, want, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.stress
def test_batches_equal_single_runs_and_only_the_steps_asked_for_change(tiny: Any) -> None:
    ask: dict[str, Any] = {"seeds": [0, 1], "metric": height, "steps": 3, "widest": 2}
    one, many = (locogen(tiny, [C], [OTHER], batch=b, **ask).values for b in (1, 16))
    np.testing.assert_allclose(one, many, rtol=ROUNDING, atol=ROUNDING)
    late = locogen(tiny, [C], [OTHER], when=[2], **ask).values
    assert float(abs(late - many).max()) > 10 * ROUNDING


def test_nothing_is_left_behind(tiny: Any) -> None:
    before = trace(tiny, [C], seeds=[0], steps=2).latents
    locogen(tiny, [C], [OTHER], seeds=[0], metric=height, steps=2)
    assert torch.equal(trace(tiny, [C], seeds=[0], steps=2).latents, before)


def test_mistakes_are_told(tiny: Any) -> None:
    ask: dict[str, Any] = {"seeds": [0], "metric": height, "steps": 2}
    with pytest.raises(ValueError, match="1 prompts but 2 others"):
        locogen(tiny, [C], [OTHER, C], **ask)
    with pytest.raises(ValueError, match="widest is 99; windows have 1 to 4 layers"):
        locogen(tiny, [C], [OTHER], widest=99, **ask)
    with pytest.raises(ValueError, match="the other prompt left the mean of height as it was"):
        locogen(tiny, [C], [C], **ask)
    with pytest.raises(ValueError, match="reads no pooled text"):
        locogen(tiny, [C], [OTHER], pooled=True, **ask)
    with pytest.raises(LookupError):
        locogen(load(tiny_ddim()), [""], ["a"], **ask)
