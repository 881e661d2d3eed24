"""Sinks and carriers: how much the picture looks at each kind of text token, and what it gets from there.

For the text tokens of a kind (``KINDS``), in each attention that the picture reads them with::

    mass          = mean over heads and the picture's tokens of  Σ_kind p
    value         = mean length of v, relative to the mean over all text tokens
    contribution  = mean over the picture's tokens of  ‖Σ_kind p v W_o‖ / ‖Σ p v W_o‖

with p the attention probabilities and W_o the output projection. "Sink" (Xiao et al. 2024, arXiv:2309.17453)
is said of tokens with far more mass than contribution. None of the three is a cause: what the rows of a kind
do to the picture says ``text_rows``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import batches, check_fields, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import panel, table
from ...models.progress import Progress, part, showing
from ...models.run.context import CallContext
from ...models.site import Site
from ...models.text.prompt import Prompt
from ...probes.observe import Observer
from ...probes.trace import expand, trace
from ..mediation.runs import check_each_once
from ..scores import Scores
from .text_rows import KINDS, kinds_of

MEASURES = ("mass", "value", "contribution")
_KINDS = tuple(k for k in KINDS if k != "subject")


@dataclass(frozen=True, eq=False)
class SpecialTokens:
    """How text tokens are read, by kind.

    Args:
        mass: dims site, kind, prompt, seed; mean over steps. Of all text tokens: 1 where the picture looks at
            the text alone, less in joint attention.
        value: the same dims; NaN where a prompt has no token of a kind.
        contribution: the same dims.
    """

    mass: Scores
    value: Scores
    contribution: Scores

    def __post_init__(self) -> None:
        check_fields(self)

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of kinds: each measure's mean over sites, with its interval."""
        parts = []
        for name in MEASURES:
            whole = Scores(getattr(self, name).values.mean("site"))
            parts.append(whole.interval(level).to_dataframe()[["mean", "low", "high"]].add_prefix(f"{name} "))
        return pd.concat(parts, axis=1).rename(columns={f"{n} mean": n for n in MEASURES})

    def __repr__(self) -> str:
        mass = self.mass.mean().mean("site")
        told = ", ".join(f"{k} {float(m):.2f}" for k, m in zip(mass["kind"].values, mass, strict=True))
        return f"SpecialTokens(mass: {told})"

    def plot(self) -> Figure:
        """Return bars of each measure, kind by kind, with intervals, ``analysis.plots.effect_bars``."""
        frame = self.to_frame()
        parts = [
            frame[[name, f"{name} low", f"{name} high"]]
            .set_axis(["mean", "low", "high"], axis=1)
            .rename_axis("measure")
            .reset_index()
            .assign(when=name)
            for name in MEASURES
        ]
        return figure("effect_bars", pd.concat(parts))

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), table(["kind", *frame.columns], frame.itertuples()))


@checked
def special_tokens(
    model: Model,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    sites: Sequence[Site | str] | Site | str | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 4,
    progress: Progress | None = None,
) -> SpecialTokens:
    """Return how much the picture looks at begin token, words, end and padding, and what it gets of each.

    Looks at the rows that read the prompt. Memory: the attention probabilities of one batch at one site.

    Args:
        model: an opened model that reads text.
        prompts: texts.
        seeds: each prompt is run with each seed.
        sites: attention probabilities by which the picture reads text, or patterns; None is all whose
            output projection is their own.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples at once.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for sites by which the picture reads no text, or which have no output projection.
        LookupError: for sites that there are not.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    places = _reading(model, sites)
    with torch.no_grad():
        read = model.encode(list(prompts))
    found = np.zeros((len(MEASURES), len(places), len(_KINDS), len(prompts), len(seeds)))
    pairs = list(product(range(len(prompts)), range(len(seeds))))
    with showing(progress) as show:
        for cut in batches(len(pairs), batch):
            some = pairs[cut]
            looks = [_Look(model, site, [read[p] for p, _ in some]) for site in places]
            trace(
                model,
                [read[p] for p, _ in some],
                seeds=[seeds[s] for _, s in some],
                steps=steps,
                guidance=model.default_guidance if guidance is None else guidance,
                interventions=[look.observer() for look in looks],
                sites=[],
                progress=part(show, cut.start, len(some), len(pairs), "samples"),
            )
            for i, look in enumerate(looks):
                for j, (p, s) in enumerate(some):
                    found[:, i, :, p, s] = look.sums[j] / look.calls
    coords = {
        "site": list(map(str, places)),
        "kind": list(_KINDS),
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    dims = ("site", "kind", "prompt", "seed")
    return SpecialTokens(*(Scores(xr.DataArray(x, coords, dims)) for x in found))


def _reading(model: Model, sites: Sequence[Site | str] | Site | str | None) -> list[Site]:
    """Where the picture's tokens look at text, by an attention with an output projection of its own."""
    known = [s for s in model.reading_sites() if hasattr(model.places()[s].module, "to_out")]
    if not known:
        raise UsageError(f"{model.name} has no attention by which the picture reads text")
    places = known if sites is None else expand(model, sites)
    for site in places:
        if site not in known:
            raise UsageError(
                f"at {site} the picture does not read text by an attention with an output of its own; give "
                f"sites like {str(known[0])!r}"
            )
    return list(places)


class _Look:
    """Adds up the three measures at one site, sample by sample."""

    def __init__(self, model: Model, site: Site, prompts: Sequence[Prompt]) -> None:
        layout = model.layout(site)
        self.site, self.picture, self.text = site, layout.picture or slice(None), layout.text or slice(None)
        self.out: Any = cast("Any", model.places()[site].module).to_out[0]
        self.masks = torch.tensor(
            [[[k == kind for k in kinds_of(p, None)] for kind in _KINDS] for p in prompts]
        )
        self.sums = np.zeros((len(prompts), len(MEASURES), len(_KINDS)))
        self.calls = 0

    def observer(self) -> Observer:
        name = str(self.site).removesuffix("probs")
        return Observer({"p": self.site, "v": f"{name}v"}, self.see)

    def see(self, parts: Mapping[str, Tensor], context: CallContext) -> None:
        self.calls += context.samples[0] == 0
        p, v = parts["p"][:, :, self.picture, :][..., self.text], parts["v"][:, :, self.text]
        for row, sample in enumerate(context.samples):
            mask = self.masks[sample].to(p)
            self.sums[sample] += self._measured(p[row], v[row], mask).double().cpu().numpy()

    def _measured(self, p: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """[measure, kind] of one row: p [head, query, key], v [head, key, channel], mask [kind, key]."""
        mass = torch.einsum("hqk,nk->n", p, mask) / (p.shape[0] * p.shape[1])
        length = v.square().sum((0, 2)).sqrt()
        value = mask @ length / mask.sum(1) / length.mean()  # 0 / 0 where there is no such token: NaN
        parts = torch.einsum("hqk,nk,hkc->nqhc", p, mask, v).flatten(2)
        each = self.out(parts) - self.out(torch.zeros_like(parts))  # without the bias, LoRAs included
        whole = each.sum(0).norm(dim=-1).clamp(min=torch.finfo(p.dtype).tiny)
        return torch.stack([mass, value, (each.norm(dim=-1) / whole).mean(1)])
