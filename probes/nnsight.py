"""The nnsight view of an opened model: the same modules, the same loop, in nnsight's own language.

For those who think in nnsight (Fiotto-Kaufman et al. 2024). A trace of the view runs ``model.sample``, so
what an envoy gives equals what ``denoscope.trace`` keeps, to the bit. Nothing is wrapped before ``view`` is
called; from then on the wrapping stays on the modules (it costs next to nothing outside a trace). nnsight
reads the source of the ``with`` block, so the block must live in a file or a notebook cell.

This is the only file that imports nnsight.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from nnsight import NNsight
from torch import Tensor, nn

from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.places.blocks import Place
from ..models.places.hooks import picked
from ..models.run.context import Branch
from ..models.site import Site

if TYPE_CHECKING:
    from nnsight.intervention.envoy import Envoy


class _Loop(nn.Module):
    """A module over the model's components; calling it samples."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.__dict__["opened"] = model
        for name, component in model.components.items():
            self.add_module(name, component)

    def forward(self, prompts: Any, **settings: Any) -> Tensor:
        *_, state = self.__dict__["opened"].sample(prompts, **settings)
        latents: Tensor = state.latents
        return latents


class View(NNsight):  # type: ignore[misc]
    """nnsight over a model; made by ``view``.

    ``view.trace(prompts, seeds=, steps=, guidance=, negative=)`` takes what ``model.sample`` takes, and its
    result is the final latents. Gradients follow torch's switch: open the trace under ``torch.no_grad()``
    unless they are wanted.
    """

    def __init__(self, model: Model) -> None:
        object.__setattr__(self, "_opened", model)
        super().__init__(_Loop(model))

    def site(self, site: Site | str) -> Envoy:
        """Return the envoy of the module that carries a site.

        Raises:
            LookupError: if the model has no such site; the message names near misses.
            ValueError: if the site lies inside a fused attention call, which no module carries.
        """
        return self.get(_path(Site(str(site)), self._place(site)))

    def sites(self, envoy: Envoy) -> tuple[Site, ...]:
        """Return the sites that an envoy's module carries; one module may carry its input and its output."""
        carried: dict[str, list[Site]] = defaultdict(list)
        for site in self._opened.sites():
            place = self._opened.place(site)
            if place.port != "sdpa":
                carried[_path(site, place)].append(site)
        return tuple(carried[envoy.path.partition(".")[2]])

    def read(self, site: Site | str, branch: Branch = "cond") -> Tensor:
        """Return the tensor at a site, inside a trace: the rows of one guidance branch, [sample, ...].

        Raises:
            LookupError: for unknown sites, and if this call has no rows of that branch.
            ValueError: if the site lies inside a fused attention call.
        """
        place, envoy = self._place(site), self.site(site)
        if place.port == "in":
            args, kwargs = envoy.inputs
            x = picked(place.module, Site(str(site)), place.item, args, kwargs)
        else:
            x = envoy.output
            x = x[int(place.item or 0)] if isinstance(x, tuple) else x
        rows = self._opened.call.rows
        if branch not in rows:
            raise NotFoundError(f"this call at {site} has rows of {list(rows)}, none of {branch!r}")
        found: Tensor = x[rows[branch]]
        return found

    def _place(self, site: Site | str) -> Place:
        place: Place = self._opened.place(site)
        if place.port == "sdpa":
            raise UsageError(
                f"{site} lies inside a fused attention call, which no module carries, so nnsight cannot give "
                "it; use denoscope.trace, or a site like '.../self_attn.q_proj' or '.../self_attn.out'"
            )
        return place


def view(model: Model) -> View:
    """Return the nnsight view of a model.

    Args:
        model: an opened model of any family.

    Returns:
        The view: ``.trace(...)`` as in nnsight, ``.site(site)`` for the envoy of a site, ``.sites(envoy)``
        for the way back, and ``.read(site)`` for the tensor there.
    """
    return View(model)


def _path(site: Site, place: Place) -> str:
    return f"{site.component}.{place.path}".rstrip(".")
