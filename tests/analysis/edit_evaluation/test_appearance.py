"""Colour differences: known colours have known distances, and what the eye sees is seen."""

from __future__ import annotations

import pytest
import torch

from denoscope.analysis.edit_evaluation.appearance import AT_A_GLANCE, colour_difference


def flat(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 16, 16)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 0), (1, 1, 1), 100.0),
        (
            (1, 0, 0),
            (0, 1, 0),
            170.57,
        ),  # CIE 76 of sRGB red (53.24, 80.09, 67.20) and green (87.73, -86.18, 83.18)
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.0),
        ((0.02, 0.02, 0.02), (0, 0, 0), 1.40),  # the straight part of the curve: L* = 903.3 Y
    ],
)
def test_known_colours(one: tuple[float, ...], other: tuple[float, ...], expected: float) -> None:
    assert float(colour_difference(flat(*one), flat(*other))) == pytest.approx(expected, abs=0.05)


def test_it_is_symmetric_and_by_sample() -> None:
    a, b = torch.rand(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    both = colour_difference(a, b)
    assert both.shape == (3,) and torch.allclose(both, colour_difference(b, a))
    assert torch.allclose(both[1:2], colour_difference(a[1:2], b[1:2]))


def test_what_is_seen_at_a_glance_counts_and_detail_does_not() -> None:
    white = torch.ones(1, 3, 64, 64)
    one, two, checks = white.clone(), white.clone(), white.clone()
    one[..., 16:48, 4:28] = torch.tensor([0.0, 0.5, 0.0]).view(3, 1, 1)
    two[..., 16:48, 4:28] = two[..., 16:48, 36:60] = torch.tensor([0.0, 0.5, 0.0]).view(3, 1, 1)
    black = one.clone()
    black[..., 16:48, 4:28] = 0
    assert float(colour_difference(one, black)) > AT_A_GLANCE  # a herb turned black
    assert float(colour_difference(one, two)) > AT_A_GLANCE  # one more of it
    assert float(colour_difference(one, one.flip(-1))) > AT_A_GLANCE  # in another place
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = 0
    assert float(colour_difference(checks, 1 - checks)) < 1e-6
