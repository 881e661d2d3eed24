"""Rows that must not move at all: the null-space form, its published relatives, and what it costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from denoscope.editing.lowrank import dense
from denoscope.editing.ridge import solve
from denoscope.editing.spans import basis_of, free_part
from tests.editing.test_ridge import change, draw

EYE = torch.eye(16, dtype=torch.float64)


def held(keys: Tensor, residual: Tensor, exact: Tensor, ridge: float = 0.1, **more: Tensor) -> Tensor:
    return dense(solve(keys, {"w": residual}, ridge, exact=exact, **more)["w"])


def projector(exact: Tensor) -> Tensor:
    return EYE - torch.linalg.pinv(exact) @ exact


@given(n=st.integers(1, 20), m=st.integers(1, 12), seed=st.integers(0, 99), soft=st.booleans())
def test_what_is_held_does_not_move(n: int, m: int, seed: int, soft: bool) -> None:
    keys, residual, exact = draw(seed, n, 16), draw(seed + 1, n, 5), draw(seed + 2, m, 16)
    more = {"preserve": draw(seed + 3, 4, 16), "covariance": EYE} if soft else {}
    delta = held(keys, residual, exact, **more)
    assert (exact @ delta.T).abs().max() <= 1e-12 * exact.abs().max() * (1 + delta.norm())
    assert delta.norm() > 0


def test_equals_the_published_forms() -> None:
    """SPEED and ACE: Rᵀ K P (Kᵀ K P + λ I)⁻¹; AlphaEdit: solve(P Kᵀ K + λ I, P Kᵀ R)."""
    keys, residual, exact = draw(0, 5, 16), draw(1, 5, 4), draw(2, 7, 16)
    p, ours = projector(exact), held(keys, residual, exact)
    speed = residual.T @ keys @ p @ torch.linalg.inv(keys.T @ keys @ p + 0.1 * EYE)
    alpha = torch.linalg.solve(p @ keys.T @ keys + 0.1 * EYE, p @ keys.T @ residual).T
    torch.testing.assert_close(ours, speed, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, alpha, rtol=0, atol=1e-12)


def test_one_key_without_ridge_is_the_double_projection() -> None:
    """DP: D = b (c N Nᵀ) / |c N|² for one concept c and its residual b."""
    key, residual, exact = draw(0, 1, 16), draw(1, 1, 4), draw(2, 7, 16)
    x = key @ projector(exact)
    torch.testing.assert_close(held(key, residual, exact, 0.0), residual.T @ x / x.square().sum())


def test_nothing_held_is_the_plain_solution() -> None:
    keys, residual = draw(0, 5, 16), draw(1, 5, 4)
    plain = dense(solve(keys, {"w": residual}, 0.1)["w"])
    assert torch.equal(held(keys, residual, torch.empty(0, 16)), plain)


def test_the_soft_solution_tends_to_it() -> None:
    keys, residual, exact = draw(0, 5, 16), draw(1, 5, 4), draw(2, 7, 16)
    ours = held(keys, residual, exact)
    errors = []
    for p in (1e2, 1e4, 1e6):
        soft = dense(solve(keys, {"w": residual}, 0.1, preserve=p**0.5 * exact)["w"])
        errors.append(float((soft - ours).norm() / ours.norm()))
    assert errors[0] > 50 * errors[1] > 2500 * errors[2]


def test_requests_are_met_where_there_is_room() -> None:
    keys, residual, exact = draw(0, 5, 16), draw(1, 5, 4), draw(2, 7, 16)
    torch.testing.assert_close(keys @ held(keys, residual, exact, 1e-12).T, residual, rtol=0, atol=1e-8)


@given(seed=st.integers(0, 99))
def test_what_is_in_the_span_already_changes_nothing(seed: int) -> None:
    keys, residual, exact = draw(seed, 5, 16), draw(seed + 1, 5, 4), draw(seed + 2, 7, 16)
    ours = held(keys, residual, exact)
    more = torch.cat([exact, draw(seed + 3, 3, 7) @ exact])
    torch.testing.assert_close(held(keys, residual, more), ours, rtol=0, atol=1e-9)
    torch.testing.assert_close(held(keys, residual, -3 * exact), ours, rtol=0, atol=1e-12)
    twice = held(torch.cat([keys, keys[:1]]), torch.cat([residual, residual[:1]]), exact)
    weights = torch.ones(5).index_fill(0, torch.tensor([0]), 2.0)
    torch.testing.assert_close(held(keys, residual, exact, weights=weights), twice)


def test_a_key_that_is_held_cannot_be_edited() -> None:
    exact = draw(2, 7, 16)
    assert (exact[:1] @ held(exact[:1], draw(1, 1, 4), exact).T).abs().max() < 1e-13


def test_half_of_the_gradient_is_left_and_it_is_zero() -> None:
    keys, targets, exact, old = draw(0, 20, 16), draw(1, 20, 4), draw(2, 7, 16), draw(3, 4, 16)
    new = old + change(keys, targets, old, 0.1, exact=exact)
    gradient = 2 * (keys @ new.T - targets).T @ keys + 0.2 * (new - old)
    assert (gradient @ projector(exact)).abs().max() < 1e-10
    assert (gradient @ exact.T).abs().max() > 1


def test_many_rows_make_the_same_basis_piece_by_piece() -> None:
    rows = draw(0, 9000, 5) @ draw(1, 5, 16)
    basis = basis_of(rows)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5, dtype=torch.float64))
    assert free_part(rows, basis).abs().max() < 1e-10 * rows.abs().max()


def test_no_room_is_said() -> None:
    with pytest.raises(ValueError, match="the 20 rows that must stay exactly span all 16 directions"):
        held(draw(0, 5, 16), draw(1, 5, 4), draw(2, 20, 16))
