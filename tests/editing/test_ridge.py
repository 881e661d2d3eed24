"""The solver: identities of the ridge formula, and answers whose truth is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from denoscope.editing.lowrank import LowRank, add, dense
from denoscope.editing.ridge import solve


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def change(keys: Tensor, targets: Tensor, old: Tensor, ridge: float, **more: Tensor) -> Tensor:
    return dense(solve(keys, {"w": targets - keys @ old.T}, ridge, **more)["w"])


def objective(
    new: Tensor,
    old: Tensor,
    keys: Tensor,
    targets: Tensor,
    ridge: float,
    weights: Tensor,
    kept: Tensor,
    cov: Tensor,
) -> Tensor:
    d = new - old
    fit = (weights * (keys @ new.T - targets).square().sum(1)).sum()
    return fit + (kept @ d.T).square().sum() + ridge * d.square().sum() + torch.trace(d @ cov @ d.T)


sizes = st.integers(1, 9)


@given(n=sizes, d=sizes, o=sizes, m=sizes, ridge=st.sampled_from([1e-3, 0.1, 10.0]), seed=st.integers(0, 99))
def test_gradient_of_the_objective_is_zero_at_the_solution(
    n: int, d: int, o: int, m: int, ridge: float, seed: int
) -> None:
    keys, targets, old, kept, root = (
        draw(seed + i, *s) for i, s in enumerate([(n, d), (n, o), (o, d), (m, d), (d, d)])
    )
    weights, cov = draw(seed + 5, n).abs(), root @ root.T
    new = old + change(keys, targets, old, ridge, weights=weights, preserve=kept, covariance=cov)
    new.requires_grad_()
    loss = objective(new, old, keys, targets, ridge, weights, kept, cov)
    (grad,) = torch.autograd.grad(loss, new)
    scale = 1 + keys.square().sum() * weights.max() + cov.abs().sum() + kept.square().sum()
    assert grad.abs().max() <= 1e-9 * scale * (1 + targets.abs().max())


def test_equals_a_numerical_optimiser() -> None:
    keys, targets, old = draw(0, 5, 8), draw(1, 5, 4), draw(2, 4, 8)
    ones, none = torch.ones(5, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64)
    new = old.clone().requires_grad_()
    lbfgs = torch.optim.LBFGS([new], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = objective(new, old, keys, targets, 0.1, ones, none[:0], none)
        loss.backward()
        return loss

    lbfgs.step(closure)
    torch.testing.assert_close(old + change(keys, targets, old, 0.1), new.detach(), rtol=0, atol=1e-7)


def test_equals_the_formula_of_the_papers() -> None:
    """TIME and UCE write W = (λ W0 + Σ v kᵀ + Σ W0 c cᵀ)(λ I + Σ k kᵀ + Σ c cᵀ)⁻¹."""
    keys, targets, kept, old = draw(0, 12, 8), draw(1, 12, 4), draw(3, 5, 8), draw(2, 4, 8)
    left = 0.5 * old + targets.T @ keys + old @ kept.T @ kept
    right = 0.5 * torch.eye(8, dtype=torch.float64) + keys.T @ keys + kept.T @ kept
    torch.testing.assert_close(
        old + change(keys, targets, old, 0.5, preserve=kept), left @ torch.linalg.inv(right)
    )


@given(
    n=st.integers(1, 7),
    extra=st.integers(1, 4),
    ridge=st.sampled_from([1e-4, 0.1, 100.0]),
    seed=st.integers(0, 99),
)
def test_dual_equals_primal(n: int, extra: int, ridge: float, seed: int) -> None:
    d = n + extra
    keys, residual, weights = draw(seed, n, d), draw(seed + 1, n, 3), draw(seed + 2, n).abs()
    dual = solve(keys, {"w": residual}, ridge, weights=weights)["w"]
    primal = solve(keys, {"w": residual}, ridge, weights=weights, covariance=torch.zeros(d, d))["w"]
    torch.testing.assert_close(dense(dual), dense(primal), rtol=1e-6, atol=1e-9)


def test_one_factorisation_serves_all_layers() -> None:
    keys, residuals = draw(0, 3, 8), {"k": draw(1, 3, 40), "v": draw(2, 3, 50)}
    together = solve(keys, residuals, 0.1)
    assert isinstance(together["k"], LowRank) and together["k"].right is together["v"].right
    for name, residual in residuals.items():
        torch.testing.assert_close(dense(together[name]), dense(solve(keys, {name: residual}, 0.1)[name]))


def test_large_ridge_changes_nothing_and_small_ridge_meets_the_targets() -> None:
    keys, targets, old = draw(0, 5, 8), draw(1, 5, 4), draw(2, 4, 8)
    assert change(keys, targets, old, 1e12).abs().max() < 1e-10
    torch.testing.assert_close(keys @ (old + change(keys, targets, old, 1e-10)).T, targets, rtol=0, atol=1e-8)
    torch.testing.assert_close(keys @ (old + change(keys, targets, old, 0)).T, targets, rtol=0, atol=1e-10)


def test_wanting_what_is_there_changes_nothing() -> None:
    keys, old = draw(0, 5, 8), draw(2, 4, 8)
    assert change(keys, keys @ old.T, old, 0.01).abs().max() < 1e-12


@given(seed=st.integers(0, 99), n=st.integers(2, 12))
def test_order_of_rows_does_not_matter_and_a_double_row_weighs_double(seed: int, n: int) -> None:
    keys, residual = draw(seed, n, 6), draw(seed + 1, n, 3)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    plain = dense(solve(keys, {"w": residual}, 0.1)["w"])
    torch.testing.assert_close(dense(solve(keys[order], {"w": residual[order]}, 0.1)["w"]), plain)
    twice = dense(solve(torch.cat([keys, keys[:1]]), {"w": torch.cat([residual, residual[:1]])}, 0.1)["w"])
    weights = torch.ones(n).index_fill(0, torch.tensor([0]), 2.0)
    torch.testing.assert_close(dense(solve(keys, {"w": residual}, 0.1, weights=weights)["w"]), twice)


def test_a_preserved_key_off_the_edited_ones_is_untouched_exactly() -> None:
    basis = torch.eye(8, dtype=torch.float64)
    for kept in (None, basis[4:6]):
        delta = dense(solve(basis[:3], {"w": draw(0, 3, 4)}, 0.1, preserve=kept)["w"])
        assert torch.equal(basis[4:] @ delta.T, torch.zeros(4, 4, dtype=torch.float64))
        assert (basis[:3] @ delta.T).abs().min() > 0


def test_preserving_a_key_holds_its_output() -> None:
    keys, residual, kept = draw(0, 3, 8), draw(1, 3, 4), draw(2, 2, 8)
    loose = dense(solve(keys, {"w": residual}, 0.01)["w"])
    held = dense(solve(keys, {"w": residual}, 0.01, preserve=1e4 * kept)["w"])
    assert (kept @ loose.T).abs().max() > 0.1
    assert (kept @ held.T).abs().max() < 1e-6
    torch.testing.assert_close(keys @ held.T, residual, rtol=0, atol=0.1)  # room is left to meet the request


def test_one_heavy_row_with_a_covariance_is_romes_rank_one_update() -> None:
    """Meng et al. 2022, eq. 2: W + (v - W k)(C⁻¹k)ᵀ / (kᵀC⁻¹k) meets v and moves nothing C⁻¹-orthogonal."""
    k, v, old, root = draw(0, 1, 6), draw(1, 1, 4), draw(2, 4, 6), draw(3, 20, 6)
    cov = root.T @ root
    u = torch.linalg.solve(cov, k[0])
    rome = torch.outer((v - k @ old.T)[0], u) / (k[0] @ u)
    ours = change(k, v, old, 0.0, weights=torch.tensor([1e7]), covariance=cov)
    torch.testing.assert_close(ours, rome, rtol=0, atol=1e-6)  # 1 / weight away from equality
    x = draw(4, 6)
    x -= (x @ u) / (u @ u) * u
    torch.testing.assert_close((old + ours) @ k[0], v[0], rtol=0, atol=1e-6)
    assert (ours @ x).abs().max() < 1e-6 < 0.1 < rome.abs().max()


def test_a_hundred_requests_at_once_equal_their_stacked_rows_in_either_form() -> None:
    keys, residual = draw(0, 300, 16), draw(1, 300, 4)
    delta = solve(keys, {"w": residual}, 0.01)["w"]
    assert isinstance(delta, Tensor)  # 300 rows need no more than the full 4 x 16
    gram = torch.linalg.inv(0.01 * torch.eye(300, dtype=torch.float64) + keys @ keys.T)
    torch.testing.assert_close(delta, residual.T @ gram @ keys, rtol=1e-7, atol=1e-9)


def test_float64_survives_where_float32_breaks() -> None:
    keys = draw(0, 40, 16)
    keys[:, 1] = keys[:, 0] + 1e-4 * keys[:, 1]  # condition number about 1e9
    planted = draw(1, 4, 16)
    found = dense(solve(keys, {"w": keys @ planted.T}, 1e-12)["w"])
    torch.testing.assert_close(found, planted, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ridge": -1.0}, "ridge is -1.0"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"residuals": {}}, "residuals is empty"),
        ({"residuals": {"w": torch.ones(4, 2)}}, r"residuals\['w'\] has shape \(4, 2\), expected \[3, any\]"),
        ({"keys": torch.ones(0, 5)}, "give at least one row"),
        ({"keys": torch.full((3, 5), float("nan"))}, "keys holds NaN"),
        ({"weights": torch.ones(2)}, "give 3 finite numbers"),
        ({"weights": -torch.ones(3)}, "from 0 up"),
        ({"preserve": torch.ones(2, 4)}, r"preserve has shape \(2, 4\), expected \[any, 5\]"),
        ({"covariance": torch.ones(5, 4)}, r"covariance has shape \(5, 4\)"),
        ({"keys": torch.ones(3, 5), "ridge": 0.0}, "give a larger ridge"),
        ({"ridge": 0.0, "preserve": torch.ones(1, 5)}, "give a larger ridge"),
    ],
)
@pytest.mark.misshapen
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    good = {"keys": draw(0, 3, 5), "residuals": {"w": torch.ones(3, 2)}, "ridge": 0.1}
    with pytest.raises(ValueError, match=message):
        solve(**{**good, **arguments})


def test_keys_that_differ_by_less_than_float64_can_tell_are_refused() -> None:
    """The factorisation succeeds, and its answer would be of the order of 1e8."""
    keys = torch.tensor([[1.0, 0, 0], [1.0, 1.2e-8, 0]], dtype=torch.float64)
    assert not int(torch.linalg.cholesky_ex(keys @ keys.T).info)
    with pytest.raises(ValueError, match="linearly dependent, so ridge 0"):
        solve(keys, {"w": draw(0, 2, 3)}, 0)


@pytest.mark.misshapen
def test_low_rank_algebra() -> None:
    a, b = LowRank(draw(0, 40, 2), draw(1, 2, 50)), LowRank(draw(2, 40, 3), draw(3, 3, 50))
    torch.testing.assert_close((a + b).dense(), a.dense() + b.dense())
    assert (a + b).right.shape == (5, 50)
    assert torch.equal((a + -1 * a).dense(), torch.zeros(40, 50, dtype=torch.float64))
    torch.testing.assert_close((0.5 * a).dense(), 0.5 * a.dense())
    assert isinstance(LowRank(draw(0, 4, 9), draw(1, 9, 5)).compact(), Tensor)
    torch.testing.assert_close(add(a, b.dense()), a.dense() + b.dense())
    with pytest.raises(ValueError, match="have no product"):
        LowRank(draw(0, 4, 2), draw(1, 3, 5))


@pytest.mark.stress
def test_at_the_size_of_stable_diffusion_xl_one_factorisation_equals_a_solve_for_each_layer() -> None:
    """3,000 keys of 2048 channels, badly conditioned as real ones are: both ways in float64."""
    scales = torch.logspace(0, -3, 2048, dtype=torch.float64)
    keys, kept = draw(0, 3000, 2048) * scales, draw(1, 500, 2048) * scales
    residuals = {str(i): draw(2 + i, 3000, 640) for i in range(4)}
    found = solve(keys, residuals, 0.1, preserve=kept)
    moment = keys.T @ keys + kept.T @ kept + 0.1 * torch.eye(2048, dtype=torch.float64)
    for name, residual in residuals.items():
        want = torch.linalg.solve(moment, keys.T @ residual).T
        torch.testing.assert_close(dense(found[name]), want, rtol=0, atol=1e-9 * float(want.abs().max()))
