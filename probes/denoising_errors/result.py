"""A bank of predictions, reduced to what their errors and differences are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.errors import NotFoundError, UsageError
from ...models.suggest import near
from .strata import standard_error

Estimator: TypeAlias = Literal["standard", "orthogonal"]
Weight: TypeAlias = Literal["nats", "v"]
ESTIMATORS: tuple[Estimator, ...] = ("standard", "orthogonal")


def check_estimator(estimator: str) -> None:
    """Raise ValueError for an estimator that there is not."""
    if estimator not in ESTIMATORS:
        raise UsageError(f"estimator is {estimator!r}; it is 'standard' or 'orthogonal'")


def density(gram: Tensor, informed: int, base: int, estimator: Estimator) -> Tensor:
    """What one condition tells beyond another, of inner products [..., condition, condition]."""
    a, b = gram[..., informed, informed], gram[..., base, base]
    if estimator == "standard":
        return 0.5 * (b - a)
    return 0.5 * (a + b - 2 * gram[..., informed, base]).clamp(min=0)  # below 0 by rounding alone


@dataclass(frozen=True, eq=False)
class ErrorBank:
    """How far predicted noise is from the noise, and predictions from each other, by picture and level.

    With residuals ``r_i = eps_hat(z, condition i) - eps`` at ``z = a x + s eps``, all lies in their Gram
    matrix: ``|eps - eps_hat_i|² = G_ii`` and ``|eps_hat_i - eps_hat_j|² = G_ii + G_jj - 2 G_ij``. An integral
    over the log-SNR is the sum over ``log_snr``, each level times ``width``.

    Args:
        conditions: names, in the order of the matrices.
        log_snr: of each level, noisiest first.
        width: of a level.
        gram: for each picture, inner products summed over the latents, the mean of each antithetic pair.
        pairs: (informed, base), those that maps are kept of.
        maps: densities of pairs, nats per unit of log-SNR, mean over draws; standard, then orthogonal.
        rows: how many network rows the bank is made of.
        reached: for each picture, whether standard errors became as small as was asked for.
        about: where it came from.
    """

    conditions: tuple[str, ...]
    log_snr: tuple[float, ...]
    width: float
    gram: Sequence[Float[Tensor, "draw level condition condition"]]
    pairs: tuple[tuple[str, str], ...]
    maps: Float[Tensor, "picture level pair estimator y x"]
    rows: int
    reached: tuple[bool, ...]
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        draws = sorted({len(g) for g in self.gram})
        some = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
        return (
            f"ErrorBank({len(self.gram)} pictures, {len(self.conditions)} conditions, "
            f"{len(self.log_snr)} levels, {some} draws; {self.rows} rows)"
        )

    @property
    def errors(self) -> Float[Tensor, "picture level condition"]:
        """Squared errors of the predicted noise, summed over the latents, mean over draws."""
        return torch.stack([g.mean(0).diagonal(dim1=-2, dim2=-1) for g in self.gram])

    @checked
    def weights(self, weight: Weight = "nats") -> Float[Tensor, " level"]:
        """What each level counts in an integral.

        Args:
            weight: ``"nats"`` is the width alone. ``"v"`` is times ``1 + 1/SNR``: errors count as those of
                the velocity (Salimans & Ho 2022), so noisy levels count more; such sums are no nats.

        Raises:
            ValueError: for another weight.
        """
        if weight not in ("nats", "v"):
            raise UsageError(f"weight is {weight!r}; it is 'nats' or 'v'")
        levels = torch.tensor(self.log_snr, dtype=torch.float64)
        return self.width * (1 + torch.exp(-levels) if weight == "v" else torch.ones_like(levels))

    @checked
    def densities(
        self, informed: str, base: str, estimator: Estimator = "standard"
    ) -> list[Float[Tensor, "draw level"]]:
        """Return what a condition tells beyond another, in nats per unit of log-SNR, for each picture.

        Half of ``|eps - eps_hat_base|² - |eps - eps_hat_informed|²`` (standard), or of
        ``|eps_hat_base - eps_hat_informed|²`` (orthogonal).

        Raises:
            LookupError: for conditions that the bank does not have.
            ValueError: for another estimator.
        """
        check_estimator(estimator)
        i, j = self._index(informed), self._index(base)
        return [density(gram, i, j, estimator) for gram in self.gram]

    @checked
    def integral(
        self, densities: Sequence[Tensor], weight: Weight = "nats"
    ) -> tuple[Float[Tensor, " picture"], Float[Tensor, " picture"]]:
        """Integrate over log-SNR what has a value [draw, level] for each picture: values, standard errors.

        Sums of densities are integrated as one, so that the noise which they share cancels in the error.
        """
        weighted = [d * self.weights(weight) for d in densities]
        values = torch.stack([w.mean(0).sum() for w in weighted])
        return values, torch.stack([standard_error(w) for w in weighted])

    @checked
    def map(
        self, informed: str, base: str, estimator: Estimator = "standard", weight: Weight = "nats"
    ) -> Float[Tensor, "picture y x"]:
        """Return the integral of a pair over log-SNR in each cell of the latents; cells add up to the whole.

        Raises:
            LookupError: for a pair that no maps were kept of.
        """
        check_estimator(estimator)
        if (informed, base) not in self.pairs:
            raise NotFoundError(
                f"the bank keeps no maps of {(informed, base)}; name it in pairs, beside {list(self.pairs)}"
            )
        kept = self.maps[:, :, self.pairs.index((informed, base)), ESTIMATORS.index(estimator)]
        return torch.einsum("l,plyx->pyx", self.weights(weight), kept)

    def _index(self, name: str) -> int:
        if name not in self.conditions:
            raise NotFoundError(f"the bank has no condition {name!r}; {near(name, self.conditions)}")
        return self.conditions.index(name)
