"""Groups without labels: who is badly met is found, and no better than by the errors themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoscope.analysis import LatentGroups, latent_groups
from denoscope.analysis.features.latent_groups import means


def planted(spread: float, seed: int = 0) -> torch.Tensor:
    """Errors of 60 pictures, of which the last twelve are met worse by 1."""
    drawn = torch.randn(60, generator=torch.Generator().manual_seed(seed))
    return 3 + spread * drawn + torch.cat([torch.zeros(48), torch.ones(12)])


LABELS = ["usual"] * 48 + ["rare"] * 12


def test_a_planted_minority_is_found_and_no_better_than_by_errors() -> None:
    for spread in (0.1, 0.5):
        found = latent_groups(planted(spread), groups=4, steps=200, rate=0.05)
        frame = found.to_frame(LABELS).set_index("label")
        rare = frame.loc["rare"]
        assert rare["pictures"] == 12
        assert 0.75 < rare["groups"] <= rare["loss"] + 0.01
        assert rare["groups_low"] <= rare["groups"] <= rare["groups_high"]
        assert frame.loc["usual", "loss"] == pytest.approx(1 - rare["loss"])


@settings(max_examples=5, deadline=None)
@given(st.integers(2, 5), st.integers(0, 99))
def test_shares_are_one_in_all_and_groups_further_apart_than_at_first(groups: int, seed: int) -> None:
    losses = planted(0.3, seed)
    found = latent_groups(losses, groups=groups, steps=20, rate=0.05, seed=seed)
    torch.testing.assert_close(found.shares.sum(1), torch.ones(60, dtype=torch.float64))
    np.testing.assert_allclose(found.data["group_loss"], means(losses.double(), found.shares))
    first = latent_groups(losses, groups=groups, steps=1, rate=1e-9, seed=seed)
    assert found.data["group_loss"].std() > first.data["group_loss"].std()


def test_a_zero_weight_leaves_no_group_empty() -> None:
    spread = [latent_groups(planted(0.1), groups=3, zero_weight=w, steps=200, rate=0.05) for w in (0.0, 30.0)]
    least = [float(found.shares.mean(0).min()) for found in spread]
    assert least[1] > max(0.25, least[0])


def test_it_is_kept_and_told(tmp_path) -> None:
    found = latent_groups(planted(0.1), groups=2, steps=20)
    found.save(tmp_path / "groups.zarr")
    again = LatentGroups.load(tmp_path / "groups.zarr")
    assert again.data.identical(found.data) and "60 pictures in 2 groups" in repr(again)
    assert "60 pictures" in again._repr_html_()


@pytest.mark.parametrize(
    ("losses", "more", "message"),
    [
        (torch.ones(5), {}, "8 groups of 5 pictures"),
        (torch.arange(9.0), {"groups": 1}, "1 groups of 9 pictures"),
        (torch.ones(9), {"groups": 2}, "all alike"),
        (torch.tensor([1.0, float("nan"), 2.0]), {"groups": 2}, "not finite"),
    ],
)
def test_what_tells_no_groups_apart_is_told(losses, more, message) -> None:
    with pytest.raises(ValueError, match=message):
        latent_groups(losses, **more)


def test_labels_have_to_fit() -> None:
    found = latent_groups(planted(0.1), groups=2, steps=2)
    for labels in (["rare"] * 60, LABELS[:-1]):
        with pytest.raises(ValueError, match="of two kinds at least"):
            found.to_frame(labels)
    assert found.to_frame([None, *LABELS[1:]])["pictures"].sum() == 59
