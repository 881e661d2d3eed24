"""Diffusion Lens: what each layer of a text encoder would have the denoiser paint.

Toker et al. 2024 (arXiv 2403.05846): the states after a layer take the place of those that the denoiser
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError, UsageError
from ...models.html import frame_table, panel
from ...models.images import to_array
from ...models.places.hooks import suspended
from ...models.progress import Progress
from ...models.run.context import CallContext
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.intervene import Intervention, intervening
from ...probes.sweep.sweeping import SweepRun, sweep
from ...probes.text_states import parts_reached, site_states
from ..mediation.runs import check_each_once
from ..metrics import Metric
from ..scores import Scores, load_result, save_store
from .scoring import score_prompts


@dataclass(frozen=True, eq=False)
class Lens:
    """What each layer of a text encoder paints.

    Args:
        scores: of the metric, dims site (the layer), prompt, seed.
        latents: final latents, [layer, prompt, seed, ...].
    """

    scores: Scores
    latents: Float[Tensor, "layer prompt seed ..."]
    _decode: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:
        return f"Lens({dict(self.scores.values.sizes)})"

    def _repr_html_(self) -> str:
        frame = self.scores.to_frame()
        return panel(repr(self), frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the table of the scores, ``Scores.to_frame``."""
        return self.scores.to_frame(level)

    @property
    def images(self) -> Tensor:
        """The pictures, [layer, prompt, seed, channel, height, width] in 0..1; decoded when asked for."""
        with torch.no_grad():
            made = self._decode(self.latents.flatten(0, 2))
        images: Tensor = made.unflatten(0, self.latents.shape[:3])
        return images

    def plot(self) -> Figure:
        """Return the pictures in a grid, ``analysis.plots.picture_grid``."""
        return figure("picture_grid", self.images.flatten(0, 2))

    @checked
    def save(self, path: str | Path) -> None:
        """Write a zarr store with scores, latents and pictures, whole or not at all.

        Raises:
            FileExistsError: if the path exists.
        """
        values, sizes = self.scores.values, self.latents.shape[:3]
        images = to_array(self.images.flatten(0, 2)).values
        three = ("site", "prompt", "seed")
        latents = self.latents.detach().cpu().float().numpy()
        data = {
            "score": values,
            "latents": ((*three, *(f"latent_{i}" for i in range(latents.ndim - 3))), latents),
            "images": ((*three, "y", "x", "channel"), images.reshape(*sizes, *images.shape[1:])),
        }
        save_store(xr.Dataset(data, attrs=values.attrs), path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Lens:
        """Read what ``save`` wrote; its pictures are those that were saved, in 256 levels.

        Raises:
            FileNotFoundError: if there is nothing at the path.
            ValueError: if it is no store of a Lens, or damaged.
        """
        data = load_result(path, {"score", "latents", "images"}, "Lens")
        pictures = torch.tensor(data["images"].values).movedim(-1, -3).flatten(0, 2).float() / 255
        scores = Scores(data["score"].rename(None).assign_attrs(data.attrs))
        return cls(scores, torch.tensor(data["latents"].values), lambda _: pictures)


@checked
def lens(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    encoder: str = "text_encoder",
    norm: Literal["as read", "final", "none"] = "as read",
    tokens: Literal["all", "words", "padding"] = "all",
    pooled: Literal["final", "same layer", "empty"] = "final",
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Lens:
    """Paint from each layer of a text encoder, the embeddings first, the layer that is read last.

    Args:
        model: an opened model with a text encoder.
        prompts: texts.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``); its clean run is the plain one.
        encoder: whose layers; other encoders stay as they are.
        norm: ``"as read"`` treats a layer as the family treats the one that it reads: with the final norm of
            the encoder (SD, T5), or without (SDXL and SD3 read the last but one layer of CLIP). ``"final"``
            is with it in any case, ``"none"`` without.
        tokens: whose states are the layer's: all, the text up to its end token, or the padding.
        pooled: the pooled text, where there is one: the plain prompt's, that layer's, or that of no text.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for an encoder whose tokens the denoiser does not read, choices that there are not, and
            runs that cannot be made.
        LookupError: for an encoder that the model does not have.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    with torch.no_grad():
        plain = model.encode(list(prompts))
        work = _Layers(model, plain, encoder, norm, tokens, pooled)
        read = [work.read(site) for site in work.sites]
    runs = [SweepRun(p, s) for layer in [plain, *read] for p in layer for s in seeds]
    made = sweep(model, runs, batch=batch, progress=progress, **how)
    latents = made.latents.unflatten(0, (1 + len(read), len(prompts), len(seeds)))
    scores = score_prompts(model, metric, latents, plain, batch=batch)
    about = provenance(model, **Sampling(**how).described(model), rows=made.rows, norm=norm, tokens=tokens,
                       pooled=pooled, metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    coords = {"site": list(map(str, work.sites)), "prompt": list(prompts), "seed": list(seeds)}
    values = xr.DataArray(scores[1:], coords, ("site", "prompt", "seed"), attrs=about)
    return Lens(Scores(values), latents[1:], model.decode)


class _Layers:
    """How the denoiser comes to read another layer of one text encoder."""

    def __init__(  # noqa: PLR0913, PLR0917  # what a lens is
        self, model: Model, plain: Sequence[Prompt], encoder: str, norm: str, tokens: str, pooled: str
    ) -> None:
        self.model, self.plain, self.tokens, self.pooled = model, plain, tokens, pooled
        if encoder not in model.text_encoders:
            names = ", ".join(model.text_encoders) or "none"
            raise NotFoundError(f"{model.name} has no text encoder {encoder!r}; it has {names}")
        self.encoder, self.texts = encoder, [p.text for p in plain]
        layers = list(model.sites(f"{encoder}/layer.*/resid.post"))
        reach = [i for i, s in enumerate(layers) if "tokens" in parts_reached(model, s, self.texts[0])]
        if not reach:
            raise UsageError(
                f"the denoiser of {model.name} reads no tokens of {encoder}; take another encoder"
            )
        self.last, self.top = layers[reach[-1]], layers[-1]
        self.sites = [Site(f"{encoder}/layer.0/resid.pre"), *layers[: reach[-1] + 1]]
        self.states = site_states(model, self.texts, self.sites)
        self.out = Site(f"{encoder}/out/embeds")
        normed = self.last == self.top  # what comes earlier is read past the final norm
        self.at = self.out if norm == "none" and normed else self.last
        self.add_norm = norm == "final" and not normed

    def read(self, site: Site) -> list[Prompt]:
        """The prompts, with the states of a layer for those that are read."""
        states = self.states[site]
        if self.add_norm:
            module = self.model.place(self.out).module
            with suspended(module):
                states = module(states)
        made = self._encoded(self.at, states)
        return [replace(m, pooled=p) for m, p in zip(made, self._pooled(site), strict=True)]

    def _pooled(self, site: Site) -> list[Tensor | None]:
        if self.plain[0].pooled is None or self.pooled == "final":
            return [p.pooled for p in self.plain]
        if self.pooled == "empty":
            return [self.model.encode([""])[0].pooled] * len(self.plain)
        if self.top == self.last or "pooled" not in parts_reached(self.model, self.top, self.texts[0]):
            return [p.pooled for p in self.plain]  # this encoder has no part in it
        return [p.pooled for p in self._encoded(self.top, self.states[site], every=True)]

    def _encoded(self, at: Site, states: Tensor, *, every: bool = False) -> list[Prompt]:
        def put(x: Tensor, _: CallContext) -> Tensor:
            return states.to(x) if every else torch.where(self._chosen(x), states.to(x), x)

        with intervening(self.model, Intervention(at, put)):
            return self.model.encode(self.texts)

    def _chosen(self, x: Tensor) -> Tensor:
        """Which states are replaced, [prompt, token, 1]."""
        ends = torch.tensor([p.of(self.encoder).end for p in self.plain], device=x.device)
        words = torch.arange(x.shape[1], device=x.device) <= ends[:, None]
        chosen: Mapping[str, Tensor] = {"all": torch.ones_like(words), "words": words, "padding": ~words}
        return chosen[self.tokens][..., None]
