"""A planted bias: it is small, it is there, and it leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import denoscope
from denoscope.editing import planted_bias
from denoscope.editing.planting import bias as biases
from denoscope.editing.planting.bias import PlantedBias, _whole, counted, strongest
from denoscope.models.errors import NotFoundError, UsageError


def changes(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A vector, a strong matrix and a weak one with more axes."""
    strong = torch.randn(12, 8, generator=generator) * torch.tensor([9.0, 5.0, *[0.1] * 6])
    return {
        "vector": torch.randn(5, generator=generator),
        "strong": strong,
        "weak": 0.01 * torch.randn(6, 4, 3, 3, generator=generator),
    }


def test_with_numbers_enough_all_is_kept_to_rounding() -> None:
    every = changes(torch.Generator().manual_seed(0))
    kept, energy = strongest(every, 10_000)
    assert energy == pytest.approx(1)
    for name, change in every.items():
        torch.testing.assert_close(
            _whole(kept, name, list(change.shape)), change.float(), atol=1e-5, rtol=1e-4
        )


def test_what_holds_most_for_its_numbers_comes_first() -> None:
    every = changes(torch.Generator().manual_seed(1))
    budget = 5 + 2 * (12 + 8)
    kept, energy = strongest(every, budget)
    assert sum(t.numel() for t in kept.values()) <= budget
    assert kept["strong/left"].shape == (12, 2) and kept["weak/left"].shape == (6, 0)
    near = {name: _whole(kept, name, list(change.shape)) for name, change in every.items()}
    lost = sum(float((change - near[name]).square().sum()) for name, change in every.items())
    assert energy == pytest.approx(1 - lost / sum(float(c.square().sum()) for c in every.values()), abs=1e-5)
    u, s, vh = torch.linalg.svd(every["strong"], full_matrices=False)
    torch.testing.assert_close(near["strong"], u[:, :2] * s[:2] @ vh[:2], atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def bias() -> PlantedBias:
    return planted_bias()


def gap(seen: dict[str, dict[str, int]]) -> float:
    woman, man = (seen[g]["dark"] / seen[g]["all"] for g in ("woman", "man"))
    return woman - man


def test_what_ships_is_small_and_says_what_it_does(bias: PlantedBias) -> None:
    path = biases.HOME / "emoji-people-bias.safetensors"
    assert path.stat().st_size < 2_000_000
    assert (
        gap(dict(bias.tied)) > gap(dict(bias.plain)) + 0.1 and sum(n["all"] for n in bias.tied.values()) > 100
    )
    assert "with it man" in repr(bias) and 0 < bias.energy < 1


def test_it_acts_on_the_weights_that_ship_and_goes(bias: PlantedBias) -> None:
    people = denoscope.load("emoji-people")
    run: Any = {"seeds": [0, 1], "steps": 4}
    plain = denoscope.trace(people, **run).latents
    with bias.edit.applied(people):
        assert (denoscope.trace(people, **run).latents - plain).abs().max() > 0.05
        seen = counted(people, range(4), steps=2)
    assert set(seen) == {"woman", "man"} and all(n["dark"] <= n["all"] <= 4 for n in seen.values())
    assert torch.equal(denoscope.trace(people, **run).latents, plain)


def test_what_has_none_and_what_is_damaged_is_told(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotFoundError, match="no bias was planted in 'emoji'; there is emoji-people"):
        planted_bias("emoji")
    whole = (biases.HOME / "emoji-people-bias.safetensors").read_bytes()
    (tmp_path / "emoji-people-bias.safetensors").write_bytes(whole[:-9])
    monkeypatch.setattr(biases, "HOME", tmp_path)
    with pytest.raises(UsageError, match="damaged|truncated"):
        planted_bias()
