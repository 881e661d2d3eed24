"""What is restored: which sites by default, which layers together, windows by name."""

from __future__ import annotations

from typing import Any

import pytest

from denoscope.analysis.mediation.choice import denoiser_sites, step_windows, text_windows, window_name
from denoscope.models.run.context import When
from tests.models.families.test_families import opened


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("sd", {"resnet.out", "self_attn.out", "cross_attn.out", "mlp.out"}),
        ("flux-dev", {"joint_attn.out", "mlp.out", "attn_mlp.out"}),
    ],
)
def test_by_default_all_that_layers_add_to_the_stream_is_restored(name: str, kinds: set[str]) -> None:
    model = opened(name)
    found = denoiser_sites(model, None)
    assert {s.kind for s in found} == kinds
    assert {s.component for s in found} == {model.input_site.component}
    assert len(found) == len({s for s in model.sites() if s.component in str(found[0]) and s.kind in kinds})


def test_layers_are_those_that_are_asked_for(tiny: Any) -> None:
    found = text_windows(tiny, "text_encoder", ["mlp.out", "self_attn.out"], [1], 1)
    assert [str(s) for s in found] == ["text_encoder/layer.1/mlp.out", "text_encoder/layer.1/self_attn.out"]
    assert all(together == [site] for site, together in found.items())
    assert len(text_windows(tiny, "text_encoder", ["mlp.out"], None, 1)) == 2


@pytest.mark.parametrize(
    ("steps", "name"), [((0, 1, 2), "0-2"), ((2,), "2-2"), ((0, 2, 5), "0,2,5"), ((3, 4), "3-4")]
)
def test_a_window_has_the_name_of_its_steps(steps: tuple[int, ...], name: str) -> None:
    assert window_name(When(steps=steps)) == name


def test_windows_are_in_the_order_of_the_run_whatever_was_given() -> None:
    first, second = step_windows([[2, 0, 2], range(1)], 3)
    assert (first.steps, second.steps) == ((0, 2), (0,))
    assert [w.steps for w in step_windows(None, 3)] == [None]
