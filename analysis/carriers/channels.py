"""Outlier channels: which few channels of a stream hold most of it, and whether that is information.

A channel may be large because it follows the step (a clock), the prompt (a carrier) or the place (a map).
Zeroing it takes away a constant offset as well, which later layers count on; so ``channels_ablated`` puts in
the mean of the step first (the clock stays), then the state of another prompt's run (what is said of this
prompt goes), and zero last. Controls: as many other channels, and as much energy of others.

Massive activations in diffusion transformers: arXiv:2510.11538, arXiv:2605.13974; the two disagree, and
neither keeps the offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import batches, check_fields, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.places.layout import Layout
from ...models.progress import Progress, part, showing
from ...models.run.context import CallContext
from ...models.site import Site
from ...probes.intervene import Intervention
from ...probes.trace import expand, trace
from ..mediation.runs import check_each_once

DIMS = ("site", "step", "prompt", "seed", "channel")


@dataclass(frozen=True, eq=False)
class Channels:
    """How large each channel of some sites is.

    Args:
        data: for each site, by name, [measure, step, prompt, seed, channel]: ``size``, ``mean`` and
            ``energy``, the means over positions of |x|, x and x². Sites may differ in their channels.
    """

    data: Mapping[str, xr.DataArray]

    def __post_init__(self) -> None:
        check_fields(self)

    @checked
    def top(self, site: Site | str, k: int = 3) -> list[int]:
        """Return the k largest channels of a site, by the mean of |x| over all runs and steps."""
        size = self._of(site).sel(measure="size").mean(["step", "prompt", "seed"])
        return [int(i) for i in np.argsort(-size.values, kind="stable")[:k]]

    def to_frame(self) -> pd.DataFrame:
        """Return a table of sites.

        Columns: ``channel`` (the largest), ``ratio`` (its size to the median channel's), ``energy_1`` and
        ``energy_3`` (what the first and the first three hold of Σ x²), ``participation`` ((Σ e)² / Σ e² over
        the number of channels: 1 is all alike), ``one_sign`` (|mean x| / mean |x|: 1 never changes sign), and
        what share of the variance of its size goes with the ``by_step`` and the ``by_run`` it is in.
        """
        rows = []
        for site, data in self.data.items():
            size, mean, energy = (
                data.sel(measure=m).mean(["step", "prompt", "seed"]).values for m in data["measure"].values
            )
            order = np.argsort(-size, kind="stable")
            first, share = int(order[0]), np.sort(energy)[::-1] / energy.sum()
            step, run = _variance(data.sel(measure="size").isel(channel=first))
            rows.append(
                {
                    "site": site,
                    "channel": first,
                    "ratio": size[first] / np.median(size),
                    "energy_1": share[0],
                    "energy_3": share[:3].sum(),
                    "participation": energy.sum() ** 2 / (energy**2).sum() / len(energy),
                    "one_sign": abs(mean[first]) / size[first],
                    "by_step": step,
                    "by_run": run,
                }
            )
        return pd.DataFrame(rows)

    def _of(self, site: Site | str) -> xr.DataArray:
        if str(site) not in self.data:
            raise UsageError(f"{site} was not looked at; there are {', '.join(self.data)}")
        return self.data[str(site)]

    @checked
    def step_means(self, site: Site | str) -> Tensor:
        """Return the mean of each channel over runs and positions, [step, channel]."""
        return torch.tensor(self._of(site).sel(measure="mean").mean(["prompt", "seed"]).values)

    @checked
    def energies(self, site: Site | str) -> np.ndarray[Any, Any]:
        """Return the mean of x² of each channel, [channel]."""
        found: np.ndarray[Any, Any] = (
            self._of(site).sel(measure="energy").mean(["step", "prompt", "seed"]).values
        )
        return found

    def __repr__(self) -> str:
        frame = self.to_frame().sort_values("ratio", ascending=False).iloc[0]
        return (
            f"Channels({len(self.data)} sites; channel {frame['channel']} of {frame['site']} is "
            f"{frame['ratio']:.1f} times the median, {frame['by_step']:.0%} by step)"
        )

    def plot(self) -> Figure:
        """Return what the largest channel of each site and its three largest hold of all energy, as bars.

        ``analysis.plots.effect_bars``.
        """
        table = self.to_frame().rename(
            columns={"site": "measure", "energy_1": "largest", "energy_3": "three"}
        )
        frame = table.melt("measure", ["largest", "three"], "when", "mean")
        return figure("effect_bars", frame.assign(low=np.nan, high=np.nan))

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))


@checked
def outlier_channels(
    model: Model,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    sites: Sequence[Site | str] | Site | str | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 8,
    progress: Progress | None = None,
) -> Channels:
    """Return how large each channel is, over all positions, in the rows that read the prompt.

    Keeps three numbers for each channel, step and run.

    Args:
        model: an opened model.
        prompts: texts.
        seeds: each prompt is run with each seed.
        sites: with channels, or patterns; None is the stream behind each block, ``**/resid.post``.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples at once.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for sites without channels.
        LookupError: for sites that there are not.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    places = expand(model, f"{model.input_site.component}/**/resid.post*" if sites is None else sites)
    layouts = {site: _with_channels(model, site) for site in places}
    pairs = list(product(range(len(prompts)), range(len(seeds))))
    kept: dict[Site, dict[tuple[int, int, int], Tensor]] = {site: {} for site in places}
    with showing(progress) as show:
        for cut in batches(len(pairs), batch):
            some = pairs[cut]
            look = [Intervention(s, partial(_keep, kept[s], layouts[s], some)) for s in places]
            run = trace(
                model,
                [prompts[p] for p, _ in some],
                seeds=[seeds[s] for _, s in some],
                sites=[],
                steps=steps,
                guidance=model.default_guidance if guidance is None else guidance,
                interventions=look,
                progress=part(show, cut.start, len(some), len(pairs), "samples"),
            )
    coords = {
        "measure": ["size", "mean", "energy"],
        "step": [s.index for s in run.steps],
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    shape = (len(run.steps), len(prompts), len(seeds))
    data = {}
    for site, seen in kept.items():
        at = product(*(range(n) for n in shape))
        whole = torch.stack([seen[step, p, s] for step, p, s in at]).unflatten(0, shape)
        data[str(site)] = xr.DataArray(
            whole.permute(3, 0, 1, 2, 4).numpy(), coords, ("measure", *DIMS[1:]), attrs=dict(run.about)
        )
    return Channels(data)


def along_channels(x: Tensor, layout: Layout) -> Tensor:
    """Return [row, channel, position] of a tensor at a site, whatever the order of its axes."""
    return x.movedim(layout.channel_axis or 1, 1).flatten(2)


def _keep(
    seen: dict[tuple[int, int, int], Tensor],
    layout: Layout,
    pairs: Sequence[tuple[int, int]],
    x: Tensor,
    context: CallContext,
) -> None:
    values = along_channels(x.detach(), layout).double()
    measured = torch.stack([values.abs().mean(2), values.mean(2), values.square().mean(2)], 1).cpu()
    for row, sample in enumerate(context.samples):
        seen[context.step.index if context.step else 0, *pairs[sample]] = measured[row]


def _with_channels(model: Model, site: Site) -> Layout:
    layout = model.layout(site)
    if site.component != model.input_site.component:
        raise UsageError(
            f"{site} is not in the denoiser, whose steps are compared; give sites of "
            f"{model.input_site.component!r}"
        )
    if layout.channel_axis is None or "head" in layout.axes or len(layout.axes) < 2:
        raise UsageError(f"{site} has the axes {layout.axes}; give sites of a stream, like **/resid.post")
    return layout


def _variance(size: xr.DataArray) -> tuple[float, float]:
    """What shares of the variance go with the step and with the run, of two-way means."""
    whole = float(size.var())
    if whole == 0:
        return float("nan"), float("nan")
    return float(size.mean(["prompt", "seed"]).var()) / whole, float(size.mean("step").var()) / whole
