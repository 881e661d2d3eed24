"""The one solver behind every closed-form edit: ridge regression that stays near the old weight.

For old weights W0 [out, in], keys K [row, in], wanted changes R = V - K W0ᵀ [row, out], row weights S, kept
keys C and ridge λ::

    min_W  ‖S^½ (K Wᵀ - V)‖² + ‖C (W - W0)ᵀ‖² + λ ‖W - W0‖² + tr (W - W0) C0 (W - W0)ᵀ
    W - W0 = Rᵀ S K M⁻¹,   M = λ I + Kᵀ S K + Cᵀ C + C0                      [in, in]
           = Rᵀ S^½ (λ I + S^½ K Kᵀ S^½)⁻¹ S^½ K                             [row, row], no C and no C0

With rows E whose outputs must not move at all (E (W - W0)ᵀ = 0, AlphaEdit of Fang et al. 2025, SPEED of Li et
al. 2025), K, C and C0 are first projected on the null space of E, by P = I - E⁺ E; residuals stay those of K.

TIME (Orgad et al. 2023, eq. 4), UCE (Gandikota et al. 2024, eq. 7), Diff-QuickFix and LocoEdit (Basu et al.
2024) and MEMIT (Meng et al. 2023, eq. 14) are this formula with other rows. M does not depend on the layer:
one Cholesky factorisation in float64 serves all layers that read the same keys; with fewer rows than inputs
the smaller dual system is solved (Woodbury). Costs min(row, in)³ once, and one matrix product for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import checked
from ..models.errors import UsageError
from .lowrank import Delta, LowRank
from .spans import basis_of, free_part


@checked
def solve(
    keys: Float[Tensor, "row in"],
    residuals: Mapping[str, Float[Tensor, "row out"]],
    ridge: float,
    *,
    weights: Float[Tensor, " row"] | None = None,
    preserve: Float[Tensor, "kept in"] | None = None,
    covariance: Float[Tensor, "in in"] | None = None,
    exact: Float[Tensor, "held in"] | None = None,
) -> dict[str, Delta]:
    """Return the change of each layer's weight that maps the keys to the wanted outputs.

    Many requests are solved at once by stacking their rows; the order of rows does not matter, and a row
    given twice counts like one row of twice the weight.

    Args:
        keys: what the layers read, [row, in]; shared by all layers.
        residuals: for each layer, by any name, wanted minus present output, [row, out].
        ridge: λ ≥ 0; how strongly the weights are held where they are. Large gives no change; with small λ
            the wanted outputs are met exactly, as far as the keys are independent.
        weights: s ≥ 0 for each row; None is 1.
        preserve: keys whose output must stay, [kept, in]. Scale a row by √p to give it the weight p.
        covariance: C0 [in, in], symmetric: the uncentred second moment of the keys of ordinary text, times a
            weight.
        exact: keys whose output stays as it is to rounding, [held, in], whatever the requests lose by it.

    Returns:
        For each layer the change W - W0 in float64: two thin factors [out, row] and [row, in], the second
        shared by all layers; or the full matrix [out, in] where that is smaller.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, systems that are singular, and
            exact keys that leave no room for a change.
    """
    keys = keys.double()
    _check(keys, residuals, ridge, preserve, covariance, exact)
    scale = _scale(keys, weights)
    held = None if exact is None or not len(exact) else basis_of(exact)
    if held is not None:
        keys = free_part(keys, held)
        preserve = None if preserve is None else free_part(preserve.double(), held)
        covariance = None if covariance is None else free_part(free_part(covariance.double(), held).T, held)
    scaled = scale[:, None] * keys
    if preserve is None and covariance is None and len(keys) < keys.shape[1]:
        gram = scaled @ scaled.T
        right = torch.cholesky_solve(scaled, _cholesky(gram, ridge))
    else:
        moment = scaled.T @ scaled
        if preserve is not None:
            moment += preserve.double().T @ preserve.double()
        if covariance is not None:
            moment += covariance.double()
        if held is not None:  # no key lies there: any positive number does
            moment += float(moment.diagonal().mean()) * held.T @ held
        factor = _cholesky(moment, ridge)
        if len(keys) >= keys.shape[1]:  # rank is full: solve for each layer's [out, in], not for every row
            full = {
                name: torch.cholesky_solve(scaled.T @ (scale[:, None] * r.double()), factor).T.contiguous()
                for name, r in residuals.items()
            }
            return {name: d if held is None else free_part(d, held) for name, d in full.items()}
        right = torch.cholesky_solve(scaled.T, factor).T.contiguous()
    if held is not None:
        right = free_part(right, held)  # rounding may have moved it
    lefts = {name: (scale[:, None] * r.double()).T.contiguous() for name, r in residuals.items()}
    return {name: LowRank(left, right).compact() for name, left in lefts.items()}


def _scale(keys: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.ones(len(keys), dtype=torch.float64, device=keys.device)
    if (
        weights.shape != keys.shape[:1]
        or not bool((weights >= 0).all())
        or not bool(weights.isfinite().all())
    ):
        raise UsageError(
            f"weights has shape {tuple(weights.shape)}; give {len(keys)} finite numbers from 0 up"
        )
    return weights.double().sqrt()


def _check(  # noqa: PLR0917  # as solve has them
    keys: Tensor,
    residuals: Mapping[str, Tensor],
    ridge: float,
    preserve: Tensor | None,
    covariance: Tensor | None,
    exact: Tensor | None,
) -> None:
    if keys.ndim != 2 or not keys.numel():
        raise UsageError(f"keys has shape {tuple(keys.shape)}; give at least one row, [row, in]")
    n, d = keys.shape
    if not 0 <= ridge < float("inf"):
        raise UsageError(f"ridge is {ridge}; it is a finite number from 0 up")
    if not residuals:
        raise UsageError("residuals is empty; name at least one layer")
    wanted: dict[str, tuple[Tensor | None, tuple[int | None, int | None]]] = {
        "keys": (keys, (n, d)),
        "preserve": (preserve, (None, d)),
        "covariance": (covariance, (d, d)),
        "exact": (exact, (None, d)),
        **{f"residuals[{name!r}]": (r, (n, None)) for name, r in residuals.items()},
    }
    for name, (x, shape) in wanted.items():
        if x is None:
            continue
        if x.ndim != 2 or any(b is not None and a != b for a, b in zip(x.shape, shape, strict=True)):
            need = ", ".join("any" if b is None else str(b) for b in shape)
            raise UsageError(f"{name} has shape {tuple(x.shape)}, expected [{need}]")
        if not bool(x.isfinite().all()):
            raise UsageError(f"{name} holds NaN or infinite values")


def _cholesky(gram: Tensor, ridge: float) -> Tensor:
    """Factor gram + ridge I; singular to float64 is an error, not a wild answer."""
    gram.diagonal().add_(ridge)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(gram)
    pivots = factor.diagonal()
    if int(info) or bool(pivots.min() ** 2 <= len(gram) * torch.finfo(gram.dtype).eps * pivots.max() ** 2):
        raise UsageError(
            f"the keys are linearly dependent, so ridge {ridge} leaves the edit undetermined; "
            "give a larger ridge, for example 0.01, or fewer keys"
        )
    return factor
