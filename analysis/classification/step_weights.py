"""How much the errors at each noise level count for a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.store.fingerprint import tensor_hash
from ...probes.denoising_errors.one_picture import Plan
from ...probes.denoising_errors.result import Weight
from ...probes.trace import Trace
from ..stored import Stored

NEEDED = {"weight", "log_snr", "accuracy", "c", "learned_on", "cross_validated", "pictures", "nats", "v"}


@dataclass(frozen=True, eq=False)
class StepWeights(Stored):
    """Weights of noise levels, learned from labelled pictures.

    Args:
        data: ``weight`` [level], none below 0, which add up to the range of log-SNR; ``log_snr`` of each.
            ``accuracy`` [strength]: cross-validated, for each strength ``c`` of the regularisation that was
            tried (small is strong). In attrs the strength that was ``chosen``, its accuracy
            (``cross_validated``), that of the plain weights on the same pictures (``nats``, ``v``), and
            the number of ``pictures``, and hashes of those that were ``learned_on``.
    """

    needed: ClassVar[frozenset[str]] = frozenset(NEEDED)

    def __post_init__(self) -> None:
        check_fields(self)
        if missing := NEEDED - set(map(str, self.data.variables)) - set(self.data.attrs):
            raise UsageError(f"data lack {sorted(missing)}; weights of levels come from learn_weights")

    def __repr__(self) -> str:
        about = self.data.attrs
        said = f"{about['cross_validated']:.0%} (nats {about['nats']:.0%}, v {about['v']:.0%})"
        return f"StepWeights({self.data.sizes['level']} levels, {about['pictures']} pictures: {said})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def weights(self) -> xr.DataArray:
        """The weights [level]."""
        return self.data["weight"]

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return a table of levels: log_snr, the learned weight, and those of ``"nats"`` and ``"v"``.

        Each of the three adds up to the range of log-SNR.
        """
        levels, total = self.data["log_snr"].values, float(self.weights.sum())
        plain = {name: _plain(levels, name) for name in ("nats", "v")}
        scaled = {name: w / w.sum() * total for name, w in plain.items()}
        return pd.DataFrame({"log_snr": levels, "weight": self.weights.values, **scaled})

    @checked
    def plot(self) -> Figure:
        """Return bars of the learned weights and the plain ones, ``analysis.plots.effect_bars``."""
        frame = self.to_frame()
        names = ["v", "weight", "nats"]
        coords = {"measure": [f"log-SNR {level:.2f}" for level in frame["log_snr"]], "when": names}
        mean = xr.DataArray(frame[names].to_numpy(), coords, ("measure", "when"))
        nothing = xr.full_like(mean, np.nan)
        return figure("effect_bars", xr.Dataset({"mean": mean, "low": nothing, "high": nothing}))


Weights: TypeAlias = Weight | Sequence[float] | StepWeights


def weights_of(weights: Any, plan: Plan, pictures: Sequence[set[str]]) -> tuple[str, Float[Tensor, " level"]]:
    """Return the name of the weights, and what each level counts.

    Args:
        weights: "nats", "v", a number for each level, or learned ones.
        plan: the levels.
        pictures: what each picture is known by, as ``hashes`` has it.

    Raises:
        ValueError: for another name, weights of other levels, weights that are no weights, and pictures that
            the weights were learned on.
    """
    if isinstance(weights, str):
        if weights not in ("nats", "v"):
            raise UsageError(
                f"weights is {weights!r}; it is 'nats', 'v', a number for each level, or learned"
            )
        return weights, plan.width * torch.from_numpy(_plain(np.array(plan.log_snr), weights))
    learned = isinstance(weights, StepWeights)
    if learned:
        _check_levels(weights, plan.log_snr)
        _check_unseen(weights, pictures)
    found = torch.tensor([float(w) for w in (weights.weights.values if learned else weights)]).double()
    if len(found) != len(plan.log_snr):
        raise UsageError(f"there are {len(found)} weights for {len(plan.log_snr)} levels; give one for each")
    if not bool(torch.isfinite(found).all()) or float(found.min()) < 0 or not float(found.max()):
        raise UsageError(f"weights are {found.tolist()}; they are 0 or more, finite, and not all 0")
    return "learned" if learned else "given", found


def hashes(images: Tensor | Trace, clean: Tensor) -> list[set[str]]:
    """Return what each picture is known by: its latents, whose bits may hang on the batch, and its pixels."""
    pixels = images if isinstance(images, Tensor) else clean
    return [{tensor_hash(x), tensor_hash(z)} for x, z in zip(pixels, clean, strict=True)]


def _check_unseen(weights: StepWeights, pictures: Sequence[set[str]]) -> None:
    learned_on = set(weights.data.attrs["learned_on"])
    if (known := next((i for i, own in enumerate(pictures) if own & learned_on), None)) is not None:
        raise UsageError(
            f"picture {known} is one that the weights were learned on, so they would be tested on what they "
            "know; give other pictures"
        )


def _plain(levels: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """As an ``ErrorBank`` weighs: errors of the noise, or as those of the velocity."""
    return 1 + np.exp(-levels) if name == "v" else np.ones_like(levels)


def _check_levels(weights: StepWeights, levels: Sequence[float]) -> None:
    own = [float(x) for x in weights.data["log_snr"].values]
    if len(own) != len(levels) or not np.allclose(own, levels, atol=1e-6):
        raise UsageError(
            f"the weights are of {len(own)} levels, log-SNR {own[0]:.3g} to {own[-1]:.3g}, and here are "
            f"{len(levels)}, {levels[0]:.3g} to {levels[-1]:.3g}; give the same log_snr and levels"
        )
