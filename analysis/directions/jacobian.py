"""Along which directions at a site the prediction changes most: singular vectors of a Jacobian.

Park et al. 2023, "Understanding the Latent Space of Diffusion Models through the Lens of Riemannian Geometry"
(arXiv:2307.12868), for a vector that is added at all places of a site: J is the derivative of the network's
output by it. The leading right singular vectors are found by subspace iteration on JᵀJ, from products with J
and Jᵀ alone; the product with J is the derivative of the one with Jᵀ, so that reverse mode does both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.direction import Direction
from ...probes.intervene import Intervention

Product = Callable[[Tensor], Tensor]


MOST_ITERATIONS = 1_000
"""More would be a slip: each goes through the network as often as the rank says."""


@checked
def jacobian_directions(
    model: Model,
    site: Site | str,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    step: int,
    rank: int = 4,
    iterations: int = 8,
    **settings: Unpack[SamplingOptions],
) -> tuple[Direction, ...]:
    """Return the directions at a site along which the prediction of a prompt changes most.

    The strongest come first; they are of length 1 and orthogonal. ``about["singular_value"]`` is how much the
    prediction changes for a step along each, over all samples together. Directions of one sample alone are
    its own: give several.

    Args:
        model: an opened model.
        site: in the denoiser.
        prompts: each runs with each seed up to the step.
        seeds: of the runs.
        step: at which step of the run.
        rank: how many directions.
        iterations: of the subspace iteration.
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for a step outside the run, more directions than channels, and a site on which the
            prediction does not depend.
        LookupError: for a site that the model does not have.
    """
    site = Site(str(site))
    axis = Direction(site, torch.ones(1)).at(model).axes[site] or 0
    how = Sampling(**settings)
    n_steps = len(model.steps(how))
    if not 0 <= step < n_steps or iterations < 1 or not prompts or not seeds:
        raise UsageError(
            f"step is {step} of {n_steps}, iterations {iterations}, with {len(prompts)} prompts and "
            f"{len(seeds)} seeds; give a step of the run, and at least one of each"
        )
    if iterations > MOST_ITERATIONS:
        raise UsageError(f"iterations is {iterations}; a few are enough, give {MOST_ITERATIONS} at most")
    forward, back, channels = _products(model, site, axis, (prompts, seeds, step), settings)
    if not 1 <= rank <= channels:
        raise UsageError(f"rank is {rank}; {site} has {channels} channels, so it lies between 1 and that")
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
        basis = torch.linalg.qr(torch.randn(channels, rank, generator=torch.Generator().manual_seed(0)))[0]
        for _ in range(iterations):
            basis = torch.linalg.qr(torch.stack([back(forward(v)) for v in basis.T], 1))[0]
        image = torch.stack([forward(v).flatten() for v in basis.T], 1)
    _, values, turn = torch.linalg.svd(image, full_matrices=False)
    if not float(values[0]) > 0:
        raise UsageError(f"the prediction does not depend on {site} at step {step}")
    about = provenance(model, **how.described(model), method="jacobian", step=step, seeds=list(seeds),
                       prompts=list(prompts))  # fmt: skip
    found = (basis @ turn.T).T
    return tuple(
        Direction(site, v / v.norm(), about={**about, "singular_value": float(s)})
        for v, s in zip(found, values, strict=True)
    )


def _products(
    model: Model,
    site: Site,
    axis: int,
    where: tuple[Sequence[str], Sequence[int], int],
    settings: SamplingOptions,
) -> tuple[Product, Product, int]:
    """Return v -> J v, u -> Jᵀ u, and the number of channels; one pass of the network serves all of them."""
    prompts, seeds, step = where
    texts, each = [p for p in prompts for _ in seeds], [*seeds] * len(prompts)
    with torch.no_grad():
        run = model.sample(texts, seeds=each, **settings)
        state = next(s for s in run if s.step.index == step)
    added: list[Tensor] = []

    def fn(x: Tensor, _: object) -> Tensor:
        if not added:
            added.append(x.new_zeros(x.shape[axis]).requires_grad_())
        shape = [1] * x.ndim
        shape[axis] = -1
        return x + added[0].view(shape)

    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        out = model.denoise(
            state.model_input, state.step, state.prompts, interventions=[Intervention(site, fn)]
        )
        u = torch.zeros_like(out, requires_grad=True)
        (transposed,) = torch.autograd.grad(out, added[0], u, create_graph=True)

    def forward(v: Tensor) -> Tensor:
        return torch.autograd.grad(transposed, u, v.to(transposed), retain_graph=True)[0].float().cpu()

    def back(w: Tensor) -> Tensor:
        return torch.autograd.grad(out, added[0], w.to(out), retain_graph=True)[0].float().cpu()

    return forward, back, len(added[0])
