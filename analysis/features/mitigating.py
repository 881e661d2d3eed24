"""What taking a bias out reaches, and what it costs: several ways on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Unpack, runtime_checkable

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.judges.distances import kernel_distance
from ...models.progress import Progress, showing
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ..intervals import interval, proportion
from ..mediation.runs import check_each_once
from ..stored import Stored
from ..word_experiments.counting import Label, labelled
from .fairness import Shares, check_shares, fairness_discrepancy
from .painting import Samples, Way

FEWEST = 3


@runtime_checkable
class Eyes(Protocol):
    """What a comparison of pictures asks of a judge; the embedded one and ``clip_judge(...)`` can say it."""

    def similarity(self, images: Tensor, others: Tensor) -> Tensor:
        """How alike pictures are, [sample, other]."""

    def features(self, images: Tensor) -> Tensor:
        """What it sees in them, [sample, feature]."""


@dataclass(frozen=True, eq=False)
class Mitigation(Stored):
    """What several ways to take a bias out came to; the first way is "plain", nothing done.

    Args:
        data: ``label`` [way, sample], what a picture shows; ``kept`` [way, sample], how like the plain
            picture it is; ``moved`` [way, sample], root mean square difference of the final latents;
            ``quality`` [way, left out], kernel distance from the reference with no sample left out and then
            without each; ``rows`` [way], network rows a sample.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"label", "kept", "moved", "quality", "rows", "target"})

    def __repr__(self) -> str:
        frame = self.to_frame(n_resamples=100)
        told = ", ".join(f"{r.way} {r.discrepancy:.3f}" for r in frame.itertuples())
        return f"Mitigation({self.data.sizes['sample']} samples; discrepancy: {told})"

    def _repr_html_(self) -> str:
        frame = self.to_frame(n_resamples=100)
        return panel(repr(self), frame_table(frame))

    @property
    def target(self) -> dict[str, float]:
        """Class -> share."""
        return dict(self.data.attrs["target"])

    @checked
    def to_frame(self, level: float = 0.95, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Return a table with a row for each way; each number with its low and high.

        ``discrepancy``: fairness discrepancy from the target among the pictures that show one of its classes
        (``n`` of them), with ``chance``; ``kept``: similarity to the plain picture; ``moved``: difference of
        latents; ``quality``: kernel distance (KID) from the reference, jackknife; ``rows``: network rows a
        sample.
        """
        rows = []
        kept, moved = (interval(self.data[k], ["sample"], level) for k in ("kept", "moved"))
        for i, way in enumerate(map(str, self.data["way"].values)):
            said = [str(x) for x in self.data["label"].values[i] if str(x) in self.target]
            told: dict[str, Any] = {"way": way, "n": len(said)}
            if said:
                found = fairness_discrepancy(
                    said, self.target, level=level, n_resamples=n_resamples, seed=seed
                )
                told |= _bounds("discrepancy", found.value, found.low, found.high)
                told["chance"] = found.chance
            for name, of in (("kept", kept), ("moved", moved)):
                told |= _bounds(name, *(float(of[k][i]) for k in ("mean", "low", "high")))
            told |= _jackknife(self.data["quality"].values[i])
            rows.append({**told, "rows": float(self.data["rows"][i])})
        return pd.DataFrame(rows)

    @checked
    def shares(self, level: float = 0.95) -> pd.DataFrame:
        """Return how many pictures of each way show each class: way, class, mean, low, high (Wilson)."""
        shown = xr.concat([(self.data["label"] == c).astype(float) for c in self.target], "class")
        found = proportion(shown.assign_coords({"class": list(self.target)}), ["sample"], level)
        return found.to_dataframe().reset_index()[["way", "class", "mean", "low", "high"]]

    def plot(self) -> Figure:
        """Return a figure of the classes' shares, way by way, ``analysis.plots.effect_bars``."""
        frame = self.shares()
        return figure("effect_bars", frame.rename(columns={"way": "measure", "class": "when"}))


def _bounds(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _jackknife(values: Any) -> dict[str, float]:
    """A number with the limits of a normal interval: all samples first, then without each."""
    whole, without = float(values[0]), values[1:]
    n = len(without)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return _bounds("quality", whole, whole - 1.96 * error, whole + 1.96 * error)


@checked
def compare_mitigations(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    ways: Mapping[str, Way],
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    label: Label,
    target: Shares,
    judge: Eyes,
    reference: Tensor | None = None,
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Mitigation:
    """Paint the same samples in several ways, and measure fairness, content, quality and cost of each.

    Under ``guidance=Asymmetric()`` what acts with ``branch="edited"`` is asymmetric, and with ``branch=None``
    plain, so that both can be compared; rows then count both branches.

    Args:
        model: an opened model.
        ways: by name: for each sample what acts on it, ``[(edit,), (), ...]``, or another text for each, or
            an edit of weights, or another start of all samples (``model.start_at``). ``stratified`` says
            which sample is to be what.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample; others than those with which features or strengths were found.
        label: says of pictures what class each shows.
        target: class -> share; pictures of other classes do not count.
        judge: whose eyes say how like the plain picture each is, and what features pictures have.
        reference: pictures to which quality is the distance, at least as many as samples, the first of which
            count; None is the plain ones, so that quality says how far all of them moved together.
        batch: samples in one batch.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for a way called "plain", ways that are not one thing for each sample, fewer than three
            samples, too few reference pictures, and shares that do not sum to 1.
    """
    samples = Samples.of(model, prompts, seeds, batch, settings)
    wanted = check_shares(target)
    check_each_once("seeds", list(map(str, zip(seeds, map(_text, samples.prompts), strict=True))))
    if "plain" in ways or not ways or len(seeds) < FEWEST:
        raise UsageError(
            f"ways are {list(ways)} for {len(seeds)} samples; give one or more, none called 'plain', to "
            f"{FEWEST} samples or more"
        )
    if reference is not None and (reference.ndim != 4 or len(reference) < len(seeds)):
        raise UsageError(
            f"reference is {tuple(reference.shape)} for {len(seeds)} samples; give as many pictures or more, "
            "[picture, 3, height, width]"
        )
    with showing(progress) as show:
        samples = replace(samples, progress=show)
        made = {"plain": samples.painted("plain")}
        made |= {name: samples.painted(name, way) for name, way in ways.items()}
    plain = made["plain"].latents
    pictures = samples.pictures(plain)
    looking = _Looking(samples, judge, label, plain, pictures, pictures if reference is None else reference)
    seen = [looking.at(found.latents) for found in made.values()]
    dims = {"label": "sample", "kept": "sample", "moved": "sample", "quality": "left_out"}
    data: dict[str, Any] = {k: (("way", d), np.stack([s[k] for s in seen])) for k, d in dims.items()}
    data["rows"] = (("way",), [found.rows / len(seeds) for found in made.values()])
    about = provenance(model, **Sampling(**settings).described(model), method="compare_mitigations")
    coords = {"way": list(made), "sample": list(range(len(seeds)))}
    return Mitigation(xr.Dataset(data, coords, attrs={**about, "target": wanted}))


def _text(prompt: str | Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.digest


@dataclass(frozen=True, eq=False)
class _Looking:
    """Who looks at pictures, and what they are compared with."""

    samples: Samples
    judge: Eyes
    label: Label
    latents: Tensor
    plain: Tensor
    reference: Tensor

    @torch.no_grad()
    def at(self, latents: Tensor) -> dict[str, Any]:
        """What is measured of the pictures of one way."""
        images, n = self.samples.pictures(latents), len(latents)
        features, beside = self.judge.features(images), self.judge.features(self.reference[:n])
        every = torch.arange(n)
        parts = [every, *(every[every != i] for i in range(n))]
        return {
            "label": np.array([str(x) for x in labelled(self.label, images)]),
            "kept": torch.diagonal(self.judge.similarity(images, self.plain)).double().cpu().numpy(),
            "moved": (latents - self.latents).square().flatten(1).mean(1).sqrt().double().cpu().numpy(),
            "quality": np.array([kernel_distance(features[some], beside[some]) for some in parts]),
        }
