"""Directions: steering moves along them by alpha, ablation leaves nothing of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.site import Site
from denoscope.probes.direction import Direction
from denoscope.probes.trace import trace

TOKENS, PICTURE = Site("unet/mid.attn.0.0/resid.post"), Site("unet/mid.res.0/resid.post")
PROMPTS, RUN = ["a cat", "a dog"], {"seeds": [0, 1], "steps": 2}


def direction(site, axis):
    return Direction(site, torch.randn(16, generator=torch.Generator().manual_seed(0)), axis)


@pytest.mark.parametrize(("site", "axis"), [(TOKENS, -1), (PICTURE, 1)])
def test_after_ablation_nothing_is_left(tiny, site, axis):
    d = direction(site, axis)
    before = trace(tiny, PROMPTS, sites=[site], **RUN)[site][0]
    after = trace(tiny, PROMPTS, sites=[site], interventions=[d.ablate()], **RUN)[site][0]
    assert d.component(before).abs().max() > 0.1
    assert d.component(after).abs().max() < 1e-5
    torch.testing.assert_close(after + d.component(before) * d._along(before), before)


@given(alpha=st.floats(-5, 5))
def test_steering_moves_by_alpha(tiny, alpha):
    d = direction(TOKENS, -1)
    before = trace(tiny, PROMPTS, sites=[TOKENS], seeds=[0, 1], steps=1)[TOKENS]
    after = trace(tiny, PROMPTS, sites=[TOKENS], interventions=[d.steer(alpha)], seeds=[0, 1], steps=1)[
        TOKENS
    ]
    torch.testing.assert_close(
        d.component(after - before), torch.full((1, 2, 16, 1), alpha), atol=1e-4, rtol=1e-4
    )


def test_the_vector_is_normalised():
    assert Direction(TOKENS, torch.tensor([3.0, 4.0])).vector.tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.ones(2, 2), torch.tensor([float("nan"), 1])])
@pytest.mark.misshapen
def test_vectors_that_point_nowhere_are_refused(vector):
    with pytest.raises(ValueError, match="finite, non-zero vector"):
        Direction(TOKENS, vector)


def test_a_wrong_axis_is_refused(tiny):
    with pytest.raises(
        ValueError, match=r"has 16 channels, but axis 2 of the activation \(2, 16, 4, 4\) has 4"
    ):
        trace(tiny, PROMPTS, interventions=[direction(PICTURE, 2).ablate()], **RUN)
