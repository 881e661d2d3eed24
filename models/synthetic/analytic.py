"""A denoiser with exact answers: the posterior mean of a Gaussian mixture.

Every component carries attributes (``{"shape": "circle", "colour": "red"}``); a condition fixes some of them
and so leaves a smaller mixture. Denoised means, scores, densities, class posteriors and pointwise information
are then known in closed form, which is what laws and estimators are tested against. Units are those of Karras
et al. 2022 (arXiv:2206.00364): ``x = x_0 + sigma eps``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor, nn

from ..base import Model
from ..errors import NotFoundError, UsageError
from ..places.blocks import Place
from ..places.layout import Layout
from ..run.levels import Step
from ..run.prediction import Steps
from ..site import Site
from ..suggest import near
from ..text.prompt import Prompt

Condition = Mapping[str, str]

_AXES = {
    "denoiser/components/in": ("channel",),
    "denoiser/components/density": ("component",),
    "denoiser/components/means": ("component", "channel"),
    "denoiser/gate/out": ("component",),
    "denoiser/mix/out": ("channel",),
}


class Components(nn.Module):
    """What each Gaussian says on its own about a noisy point."""

    def __init__(self, means: Tensor, covs: Tensor) -> None:
        super().__init__()
        values, vectors = torch.linalg.eigh(covs)
        self.means, self.values, self.vectors = map(_fixed, (means, values, vectors))

    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return log N(x; mu_k, C_k + sigma² I), and E[x_0 | x, k]; [sample, component(, dim)]."""
        spread = self.values + sigma.view(-1, 1, 1) ** 2
        away = torch.einsum("nkd,kde->nke", x[:, None] - self.means, self.vectors)
        density = -0.5 * (away**2 / spread + spread.log() + math.log(2 * math.pi)).sum(-1)
        shrunk = torch.einsum("nke,kde->nkd", away * self.values / spread, self.vectors)
        return density, self.means + shrunk


class Gate(nn.Module):
    """How much each component is believed: p(k | x, condition)."""

    def forward(self, density: Tensor, log_weights: Tensor) -> Tensor:
        """Return responsibilities [sample, component]."""
        return (density + log_weights).softmax(-1)


class Mix(nn.Module):
    """The components' means, weighed by the gate."""

    def forward(self, gate: Tensor, means: Tensor) -> Tensor:
        """Return E[x_0 | x, condition] [sample, dim]."""
        return torch.einsum("nk,nkd->nd", gate, means)


class AnalyticDenoiser(nn.Module):
    """The exact minimum-mean-square-error denoiser of a mixture of Gaussians.

    Args:
        weights: [component], positive; normalised here.
        means: [component, dim].
        covs: [component, dim, dim], positive semi-definite (rank-deficient ones make low-rank mixtures).
        attributes: name -> the value of each component.

    Raises:
        ValueError: for shapes that do not fit, or weights that are not positive.
    """

    def __init__(
        self,
        weights: Float[Tensor, " component"],
        means: Float[Tensor, "component dim"],
        covs: Float[Tensor, "component dim dim"],
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        k, d = means.shape
        if weights.shape != (k,) or covs.shape != (k, d, d) or not bool((weights > 0).all()):
            shapes = [tuple(t.shape) for t in (weights, means, covs)]
            raise UsageError(
                f"weights, means, covs need shapes [k], [k, d], [k, d, d], weights > 0; got {shapes}"
            )
        self.attributes = {name: tuple(values) for name, values in (attributes or {}).items()}
        for name, values in self.attributes.items():
            if len(values) != k:
                raise UsageError(f"attribute {name!r} has {len(values)} values for {k} components")
        self.log_weights = _fixed((weights / weights.sum()).log())
        self.components, self.gate, self.mix = Components(means, covs), Gate(), Mix()

    def forward(
        self, x: Tensor, sigma: Tensor | float, conditions: Sequence[Condition] | None = None
    ) -> Tensor:
        """Return E[x_0 | x, condition], [sample, dim].

        Args:
            x: ``x_0 + sigma eps``, [sample, dim].
            sigma: noise level, one for all or one for each sample.
            conditions: fixed attributes of each sample; None or {} fixes nothing.
        """
        density, means = self.components(x, self._sigma(x, sigma))
        mixed: Tensor = self.mix(self.gate(density, self._given(x, conditions)), means)
        return mixed

    def eps(self, x: Tensor, sigma: Tensor | float, conditions: Sequence[Condition] | None = None) -> Tensor:
        """Return the expected noise, E[eps | x, condition]."""
        clean: Tensor = self(x, sigma, conditions)
        return (x - clean) / self._sigma(x, sigma)[:, None]

    def score(
        self, x: Tensor, sigma: Tensor | float, conditions: Sequence[Condition] | None = None
    ) -> Tensor:
        """Return the gradient of log p_sigma(x | condition): Tweedie's formula."""
        return -self.eps(x, sigma, conditions) / self._sigma(x, sigma)[:, None]

    def log_prob(
        self, x: Tensor, sigma: Tensor | float = 0.0, conditions: Sequence[Condition] | None = None
    ) -> Float[Tensor, " sample"]:
        """Return log p_sigma(x | condition) in nats; a difference of two is pointwise information."""
        density, _ = self.components(x, self._sigma(x, sigma))
        total: Tensor = density + self._given(x, conditions)
        return total.logsumexp(-1)

    def posterior(
        self, x: Tensor, attribute: str, sigma: Tensor | float = 0.0
    ) -> Float[Tensor, "sample value"]:
        """Return p(attribute = value | x) by Bayes' rule; values as ``self.values(attribute)``."""
        density, _ = self.components(x, self._sigma(x, sigma))
        gate = self.gate(density, self.log_weights.expand_as(density))
        names = self._names(attribute)
        return torch.stack([gate[:, [n == v for n in names]].sum(-1) for v in self.values(attribute)], -1)

    def values(self, attribute: str) -> list[str]:
        """Return the values an attribute can take, in order of appearance."""
        return list(dict.fromkeys(self._names(attribute)))

    def draw(self, n: int, seed: int, condition: Condition | None = None) -> Float[Tensor, "sample dim"]:
        """Return exact samples of p(x_0 | condition)."""
        generator = torch.Generator().manual_seed(seed)
        parts = self.components
        weights = self._mask(condition or {}).exp()
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, parts.means.shape[1], generator=generator, dtype=parts.means.dtype)
        scaled = noise * parts.values[k].clamp(min=0).sqrt()
        return parts.means[k] + torch.einsum("ne,nde->nd", scaled, parts.vectors[k])

    def _names(self, attribute: str) -> tuple[str, ...]:
        if attribute not in self.attributes:
            raise NotFoundError(f"there is no attribute {attribute!r}; {near(attribute, self.attributes)}")
        return self.attributes[attribute]

    def _mask(self, condition: Condition) -> Tensor:
        """Log weights of the components a condition leaves, normalised; minus infinity for the others."""
        log_weights: Tensor = self.log_weights
        for attribute, value in condition.items():
            names = self._names(attribute)
            if value not in names:
                raise NotFoundError(f"{attribute} is never {value!r}; {near(value, set(names))}")
            off = torch.tensor([n != value for n in names], device=log_weights.device)
            log_weights = log_weights.masked_fill(off, -torch.inf)
        if torch.isinf(log_weights).all():
            raise NotFoundError(f"no component has {dict(condition)}")
        return log_weights - log_weights.logsumexp(-1)

    def _given(self, x: Tensor, conditions: Sequence[Condition] | None) -> Tensor:
        if conditions is None:
            conditions = [{}] * len(x)
        if len(conditions) != len(x):
            raise UsageError(f"{len(x)} samples but {len(conditions)} conditions; give one for each sample")
        keys = [tuple(sorted(c.items())) for c in conditions]
        masks = {key: self._mask(dict(key)) for key in set(keys)}
        return torch.stack([masks[key] for key in keys])

    def _sigma(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))


class Analytic(Model):
    """An opened AnalyticDenoiser: prompts name attribute values (``"red circle"``), latents are points.

    >>> m = Analytic(two_by_two())
    >>> [str(s) for s in m.sites("*/gate/out")]
    ['denoiser/gate/out']
    """

    def __init__(self, denoiser: AnalyticDenoiser) -> None:
        scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
        pipe: Any = SimpleNamespace(components={"denoiser": denoiser}, scheduler=scheduler, denoiser=denoiser)
        super().__init__(pipe, "analytic", default_guidance=1.0)

    @property
    def denoiser(self) -> AnalyticDenoiser:
        """The mixture."""
        mixture: AnalyticDenoiser = self.pipe.denoiser
        return mixture

    @property
    def input_site(self) -> Site:
        """Where the noisy point enters."""
        return Site("denoiser/components/in")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """One point."""
        return (self.denoiser.components.means.shape[1],)

    def _resolve(self) -> dict[Site, Place]:
        parts = self.denoiser
        return {
            Site("denoiser/components/in"): Place(parts.components, "in", 0, "components"),
            Site("denoiser/components/density"): Place(parts.components, "out", 0, "components"),
            Site("denoiser/components/means"): Place(parts.components, "out", 1, "components"),
            Site("denoiser/gate/out"): Place(parts.gate, "out", None, "gate"),
            Site("denoiser/mix/out"): Place(parts.mix, "out", None, "mix"),
        }

    def layout(self, site: Site | str) -> Layout:
        """Return the axes at a site: a point's coordinates are its channels."""
        self.place(site)
        return Layout(_AXES[str(site)])

    def _encode(self, texts: Sequence[str]) -> list[Prompt]:
        return [Prompt(t, tuple(t.split()), embeds=torch.zeros(0, 0)) for t in texts]

    def condition(self, text: str) -> dict[str, str]:
        """Return the attributes a text fixes; every word must be a value of some attribute."""
        owners = {v: name for name, values in self.denoiser.attributes.items() for v in values}
        for word in text.split():
            if word not in owners:
                raise NotFoundError(f"{word!r} in {text!r} is no attribute value; {near(word, owners)}")
        return {owners[word]: word for word in text.split()}

    def predict(self, x: Tensor, step: Steps, prompts: Sequence[Prompt]) -> Tensor:
        """The expected noise for network inputs ``a x_0 + s eps``, [sample, dim]."""
        given = [self.condition(p.text) for p in prompts]
        if isinstance(step, Step):
            a = 1 / math.sqrt(1 + step.sigma**2)
            return self.denoiser.eps(x / a, step.sigma, given)
        sigma = torch.tensor([s.sigma for s in step], dtype=x.dtype, device=x.device)
        return self.denoiser.eps(x * (1 + sigma[:, None] ** 2).sqrt(), sigma, given)

    def decode(self, latents: Tensor) -> Tensor:
        """The points themselves; there is nothing to decode."""
        return latents

    def encode_image(self, images: Tensor) -> Tensor:
        """The points themselves [sample, dim], which are its pictures; there is nothing to encode."""
        if images.ndim != 2 or tuple(images.shape[1:]) != self.latent_shape:
            raise UsageError(f"points are {tuple(images.shape)}; give [sample, {self.latent_shape[0]}]")
        return images.to(self.dtype)

    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Tensor:
        """There is no diffusers pipeline of this model."""
        raise NotImplementedError("the analytic model has no diffusers pipeline to be compared with")


def two_by_two(distance: float = 4.0, spread: float = 0.5) -> AnalyticDenoiser:
    """Return a plain example in double precision: shape moves the first coordinate, colour the second."""
    corners = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64) * distance / 2
    covs = torch.eye(2, dtype=torch.float64).expand(4, 2, 2) * spread**2
    attributes = {
        "shape": ["circle", "circle", "square", "square"],
        "colour": ["red", "blue", "red", "blue"],
    }
    return AnalyticDenoiser(torch.ones(4, dtype=torch.float64), corners, covs, attributes)


def _fixed(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)
