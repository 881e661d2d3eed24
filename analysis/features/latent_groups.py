"""Groups of pictures that a model does worst by, found without any label: who might be a minority.

Hou, Wu, Xu, Huang, Bai, Wu, Bian: InvDiff: Invariant Guidance for Bias Mitigation in Diffusion Models, KDD
2025 (arXiv:2412.08480), the search for environments. With l_i the denoising error of picture i, and w_ig >= 0
its share in group g, of which each picture has 1 in all:

    w = argmax  std_g(E_g),   E_g = sum_i w_ig l_i / sum_i w_ig

The released code scores predicted noise against the clean latents; here errors are those of ``error_bank``,
against the noise. Shares found so are a function of one number of each picture, its error. So they cannot
tell more of a label than the errors do; ``to_frame`` says what both tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.fit import fit
from ...models.html import panel
from ...models.progress import quiet
from ..directions.scoring import auc
from ..stored import Stored
from .scoring import auc_interval


@dataclass(frozen=True, eq=False)
class LatentGroups(Stored):
    """Soft groups of pictures.

    Args:
        data: ``share`` [picture, group], 1 in all for each picture; ``loss`` [picture], what they were found
            by; ``group_loss`` [group].
    """

    needed: ClassVar[frozenset[str]] = frozenset({"share", "loss", "group_loss"})

    def __repr__(self) -> str:
        s, low, high = self.data.sizes, *(float(f(self.data["group_loss"])) for f in (np.min, np.max))
        told = f"{s['picture']} pictures in {s['group']} groups; mean error {low:.3g} to {high:.3g}"
        return f"LatentGroups({told})"

    def _repr_html_(self) -> str:
        return panel(repr(self))

    def plot(self) -> Figure:
        """Return bars of the groups' mean errors, ``analysis.plots.effect_bars``; a name tells its size."""
        order, sizes = np.argsort(-self.data["group_loss"].values), self.data["share"].mean("picture").values
        frame = pd.DataFrame({
            "measure": [f"group {g} ({sizes[g]:.0%} of pictures)" for g in order],
            "when": "mean error",
            "mean": self.data["group_loss"].values[order],
            "low": np.nan,
            "high": np.nan,
        })  # fmt: skip
        return figure("effect_bars", frame)

    @property
    def shares(self) -> Float[Tensor, "picture group"]:
        """Each picture's share in each group, as ``editing.invariant`` takes them."""
        return torch.from_numpy(self.data["share"].values)

    @property
    def expected(self) -> xr.DataArray:
        """The mean error of the groups that a picture belongs to [picture]: high where it is badly met."""
        return (self.data["share"] * self.data["group_loss"]).sum("group")

    @checked
    def to_frame(
        self, labels: Sequence[str | None], *, level: float = 0.95, n_resamples: int = 500, seed: int = 0
    ) -> pd.DataFrame:
        """Return how well groups, and plain errors, tell each label from all others: AUC with intervals.

        Args:
            labels: one for each picture; None is left out.
            level: how often such intervals hold the true AUC.
            n_resamples: pictures are drawn so often, with replacement.
            seed: of the draws.

        Returns:
            A row for each label: ``label``, ``pictures``, and ``groups`` and ``loss`` with low and high.

        Raises:
            ValueError: for another number of labels, or only one kind.
        """
        names = sorted({name for name in labels if name is not None})
        if len(labels) != self.data.sizes["picture"] or len(names) < 2:
            raise UsageError(
                f"{len(labels)} labels of the kinds {names} for {self.data.sizes['picture']} pictures; give "
                "one for each, of two kinds at least"
            )
        known = np.array([name is not None for name in labels])
        own = np.array([str(name) for name in labels])
        rows: list[dict[str, Any]] = []
        for name in names:
            row: dict[str, Any] = {"label": name, "pictures": int((own == name).sum())}
            for what, x in (("groups", self.expected.values), ("loss", self.data["loss"].values)):
                inside, outside = x[known & (own == name)], x[known & (own != name)]
                bounds = auc_interval(inside, outside, n_resamples, level, seed)
                row |= {what: auc(inside, outside), f"{what}_low": bounds[0], f"{what}_high": bounds[1]}
            rows.append(row)
        return pd.DataFrame(rows)


@checked
def latent_groups(
    losses: Float[Tensor, " picture"],
    *,
    groups: int = 8,
    zero_weight: float = 0.0,
    steps: int = 500,
    rate: float = 0.01,
    seed: int = 0,
) -> LatentGroups:
    """Sort pictures softly into groups whose mean errors are as far apart as can be.

    Args:
        losses: the denoising error of each picture, as of
            ``error_bank(model, pictures, {"": ""}).errors.mean((1, 2))``.
        groups: how many. Paper: 8.
        zero_weight: adds so many times the smallest group's share of all pictures to what is sought, so that
            no group is left empty.
        steps: of Adam. Paper: 500.
        rate: its learning rate. Paper: 0.01.
        seed: of the start.

    Raises:
        ValueError: for fewer than two groups, no more pictures than groups, and errors that are not finite or
            all alike.

    >>> latent_groups(torch.cat([torch.full((9,), 1.0), torch.full((3,), 2.0)]), groups=2)
    LatentGroups(12 pictures in 2 groups; mean error 1.01 to 1.98)
    """
    x = losses.detach().double().cpu()
    if groups < 2 or len(x) <= groups or steps < 1:
        raise UsageError(
            f"{groups} groups of {len(x)} pictures, {steps} steps; give two groups or more, more pictures, "
            "and a step at least"
        )
    if not bool(x.isfinite().all()) or bool((x == x[0]).all()):
        raise UsageError("losses are all alike, or not finite, so they tell no groups apart")
    standard = (x - x.mean()) / x.std()
    start = torch.randn(len(x), groups, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits = start.mul_(0.1).requires_grad_()

    def apart(_: int, __: torch.Generator) -> Tensor:
        share = logits.softmax(1)
        return -(means(standard, share).std(unbiased=False) + zero_weight * share.mean(0).min())

    fit([logits], apart, steps=steps, optimizer=partial(torch.optim.Adam, lr=rate), seed=seed, progress=quiet)
    share = logits.detach().softmax(1)
    data = {
        "share": (("picture", "group"), share.numpy()),
        "loss": ("picture", x.numpy()),
        "group_loss": ("group", means(x, share).numpy()),
    }
    about = {"groups": groups, "zero_weight": zero_weight, "steps": steps, "rate": rate, "seed": seed}
    return LatentGroups(xr.Dataset(data, attrs=about))


def means(losses: Float[Tensor, " picture"], share: Float[Tensor, "picture group"]) -> Tensor:
    """The mean error of each group [group]."""
    return (share * losses[:, None]).sum(0) / share.sum(0)
