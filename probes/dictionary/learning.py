"""What is trained: the parameters of a dictionary, its loss, and the optimizer that keeps it in shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...models.arguments import check_fields
from ...models.errors import UsageError
from .codes import Codes, above, batch_top_k, top_k
from .measures import explained

Selection: TypeAlias = Literal["top-k", "batch-top-k"]
Rows: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""What is read [row, channel], what is to come out [row, channel], the level of each [row]."""

MEMORY = 0.99
"""How much of the threshold of batch top-k stays at each update."""


@dataclass(frozen=True)
class Learning:
    """How a dictionary is trained.

    Args:
        selection: ``"top-k"`` of each row (Gao et al. 2024), or ``"batch-top-k"``: as many in the mean over a
            batch, and afterwards what lies above the mean least value (Bussmann et al. 2024).
        pre_bias: take the output's bias off the input (Surkov et al. 2024), or not (Shi et al. 2025). A
            transcoder gets a bias of its own.
        conditioned: biases of their own at each step of the run.
        whiten: train on whitened activations; the result speaks of plain ones.
        aux: weight of the auxiliary loss, in which dead features learn what the others leave; 0 is none.
        updates: of the parameters.
        rows: in one batch.
        rate: learning rate of Adam; it falls to 0 over the last fifth.
        seed: of the start and of the order of batches.

    Raises:
        ValueError: for numbers out of range.
    """

    selection: Selection = "top-k"
    pre_bias: bool = True
    conditioned: bool = False
    whiten: bool = False
    aux: float = 1 / 32
    updates: int = 4000
    rows: int = 2048
    rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.selection not in ("top-k", "batch-top-k"):
            raise UsageError(f"selection is {self.selection!r}; it is 'top-k' or 'batch-top-k'")
        for name in ("updates", "rows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        if not 0 <= self.seed < 2**40:
            raise UsageError(f"seed is {self.seed}; it is a whole number from 0 to 2**40 - 1")
        if not (0 < self.rate < 1 and 0 <= self.aux < float("inf")):
            raise UsageError(f"rate is {self.rate} and aux {self.aux}; rate is in 0 to 1, aux from 0 up")

    def factor(self, update: int) -> float:
        """Return what the rate is multiplied by at an update."""
        return min(1.0, (self.updates - update) / max(1.0, 0.2 * self.updates))


class Autoencoder(nn.Module):
    """The parameters of a dictionary on scaled activations, and what is remembered from update to update.

    Args:
        like: rows to begin with: biases start at their geometric median; without a pre-bias at 0.
        features: how many.
        k: how many are on in a row.
        levels: of biases.
        how: settings.
        transcoder: whether what is read is another site.
        dead_after: rows after which a feature that was not used counts as dead.
        records: lines of the record.
    """

    idle: Int[Tensor, "feature"]
    least: Float[Tensor, "1"]
    record: Float[Tensor, "line column"]

    def __init__(
        self,
        like: Rows,
        *,
        features: int,
        k: int,
        levels: int,
        how: Learning,
        transcoder: bool,
        dead_after: int,
        records: int,
    ) -> None:
        super().__init__()
        self.k, self.how, self.dead_after = k, how, dead_after
        generator = torch.Generator().manual_seed(how.seed)
        x, y, _ = like
        start = normalize(torch.randn(features, y.shape[1], generator=generator), dim=-1)
        self.decoder = nn.Parameter(start)
        if transcoder:
            start = normalize(torch.randn(features, x.shape[1], generator=generator), dim=-1)
        self.encoder = nn.Parameter(start.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(levels, features))
        middle = geometric_median(y) if how.pre_bias or transcoder else torch.zeros(y.shape[1])
        self.output_bias = nn.Parameter(middle.repeat(levels, 1))
        own = transcoder and how.pre_bias
        self.own_input_bias = nn.Parameter(geometric_median(x).repeat(levels, 1)) if own else None
        self.variance = float((y - y.mean(0)).square().sum(-1).mean())
        self.register_buffer("idle", torch.zeros(features, dtype=torch.int64))
        self.register_buffer("least", torch.full((1,), -1.0))
        self.register_buffer("record", torch.full((records, 6), float("nan"), dtype=torch.float64))

    @property
    def input_bias(self) -> Tensor:
        """What is taken off the input, [level, channel in]."""
        if self.own_input_bias is not None:
            return self.own_input_bias
        if self.how.pre_bias:
            return self.output_bias
        return self.encoder.new_zeros(len(self.output_bias), self.encoder.shape[1])

    @property
    def threshold(self) -> Tensor | None:
        """The threshold of each feature, [feature]; None where each row has its k."""
        return None if self.how.selection == "top-k" else self.least.clamp_min(0).repeat(len(self.idle))

    @property
    def dead(self) -> Tensor:
        """Which features were not used for long, [feature]."""
        return self.idle >= self.dead_after

    def forward(self, x: Tensor, level: Tensor) -> tuple[Tensor, Codes, Tensor]:
        """Return pre-activations, codes, and what they stand for; without gradients as after training."""
        pre = (x - self.input_bias[level]) @ self.encoder.mT + self.encoder_bias[level]
        threshold = self.threshold
        if threshold is None:
            codes = top_k(pre, self.k)
        else:
            codes = batch_top_k(pre, self.k) if pre.requires_grad else above(pre, threshold)
        return pre, codes, codes.times(self.decoder) + self.output_bias[level]

    def loss(self, rows: Rows) -> Tensor:
        """Return the loss of a batch, and take note of what was used."""
        x, y, level = rows
        pre, codes, made = self(x, level)
        error = y - made
        loss: Tensor = error.square().sum(-1).mean() / self.variance
        dead = self.dead
        if self.how.aux and bool(dead.any()):
            loss = loss + self.how.aux * self._auxiliary(pre, dead, error.detach())
        self._note(codes, len(x))
        return loss

    def _auxiliary(self, pre: Tensor, dead: Tensor, error: Tensor) -> Tensor:
        """How badly the strongest dead features make up what is left (Gao et al. 2024, appendix A.2)."""
        k = min(int(dead.sum()), max(1, error.shape[1] // 2))
        made = top_k(pre.masked_fill(~dead, -torch.inf), k).times(self.decoder)
        return (error - made).square().sum() / error.square().sum().clamp_min(1e-12)

    @torch.no_grad()
    def _note(self, codes: Codes, rows: int) -> None:
        used = codes.values > 0
        self.idle += rows
        self.idle[codes.features[used]] = 0
        if self.how.selection == "batch-top-k" and bool(used.any()):
            least = codes.values.detach()[used].min()
            self.least.copy_(least if self.least < 0 else MEMORY * self.least + (1 - MEMORY) * least)

    @torch.no_grad()
    def measured(self, rows: Rows, back: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
        """Return loss, explained variance in both forms, l0 and the share of dead features.

        Args:
            rows: held out.
            back: from scaled activations to plain ones.
        """
        x, y, level = rows
        _, codes, made = self(x, level)
        loss = float((y - made).square().sum(-1).mean()) / self.variance
        return (loss, *explained(back(y), back(made)), codes.l0, float(self.dead.double().mean()))


class UnitNormAdam(torch.optim.Adam):
    """Adam whose decoder has rows of length 1 after every step.

    The gradient along a row is taken away before the step, and the row is brought back to length 1 after it.

    Args:
        params: all.
        decoder: which of them, [feature, channel].
        rate: learning rate.
    """

    def __init__(self, params: list[Tensor], *, decoder: Tensor, rate: float) -> None:
        super().__init__(params, lr=rate, eps=6.25e-10)
        self.decoder = decoder

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step."""
        d = self.decoder
        if d.grad is not None:
            d.grad -= (d.grad * d).sum(-1, keepdim=True) * d
        done = super().step(closure)
        d.div_(d.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return done


def geometric_median(x: Float[Tensor, "row channel"], rounds: int = 100) -> Float[Tensor, "channel"]:
    """Return the point nearest to all rows, by Weiszfeld's iteration."""
    point: Tensor = x.mean(0)
    for _ in range(rounds):
        weight = 1 / (x - point).norm(dim=-1, keepdim=True).clamp_min(1e-8)
        new: Tensor = (x * weight).sum(0) / weight.sum()
        if bool((new - point).norm() <= 1e-5 * new.norm()):
            return new
        point = new
    return point
