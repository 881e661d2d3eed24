"""An opened pipeline's networks, and where sites lie in them; both as they are now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from .arguments import checked
from .errors import NotFoundError
from .places.blocks import Place
from .places.layout import Layout, site_layout
from .places.live import Live
from .places.parameters import canonical, parameter
from .places.resolve import resolve
from .run.context import TEXT
from .site import Site
from .suggest import near


class Structure(ABC):
    """What an opened pipeline is made of; the base of every adapter."""

    pipe: Any
    name: str
    live: Live
    _config: Any = None
    _names: tuple[str, ...] = ()
    joint_order: tuple[str, str] = ("img", "txt")
    """Where joint attention has the picture's tokens and the text's."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents."""

    def _parts(self) -> Mapping[str, Any]:
        """The pipeline's components as they are now; diffusers reads their names off a signature."""
        config = getattr(self.pipe, "config", None)
        if config is None or config is not self._config:  # a new one wherever parts are registered
            parts: Mapping[str, Any] = self.pipe.components
            self._config, self._names = config, tuple(parts)
            return parts
        return {name: getattr(self.pipe, name) for name in self._names}

    def _resolve(self) -> dict[Site, Place]:
        return resolve(self.components)

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The pipeline's networks as they are now; our own calls have them in evaluation mode."""
        return {k: m for k, m in self._parts().items() if isinstance(m, nn.Module)}

    def places(self) -> Mapping[Site, Place]:
        """Return where every site lies; found anew when a component was replaced or rebuilt."""
        return self.live.places(self.components, self._resolve)

    @checked
    def places_of(self, sites: Collection[Site | str]) -> list[Place]:
        """Return where sites lie: module, port and item; for many, cheaper than one by one.

        Raises:
            LookupError: if this model has no such site; the message names near misses.
        """
        found, places = [], self.places()
        for site in (Site(str(s)) for s in sites):
            if site not in places:
                raise NotFoundError(
                    f"{self.name} has no site {str(site)!r}; {near(str(site), map(str, places))}"
                )
            found.append(places[site])
        return found

    @checked
    def place(self, site: Site | str) -> Place:
        """Return where a site lies; see ``places_of``."""
        return self.places_of([site])[0]

    @checked
    def module(self, site: Site | str) -> nn.Module:
        """Return the module that carries a site."""
        return self.place(site).module

    @checked
    def weights(self, site: Site | str) -> dict[str, nn.Parameter]:
        """Return the parameters of the module that carries a site, by full name (``unet.mid_block...``).

        What a whole network is given (``unet/in/text``) has none.
        """
        place, component = self.place(site), Site(str(site)).component
        if not place.path:
            return {}
        return {canonical(f"{component}.{place.path}.{n}"): p for n, p in place.module.named_parameters()}

    @checked
    def parameter(self, name: str) -> nn.Parameter:
        """Return one parameter by the full name that ``weights`` gives, whatever the version of transformers.

        Raises:
            LookupError: if there is none; the message names near misses.
            RuntimeError: if it is there, but nobody reads it, since projections were fused.
        """
        return parameter(self.components, self.name, name)

    @checked
    def layout(self, site: Site | str) -> Layout:
        """Return the axes of a site: their names, the picture's grid, whose its tokens are, heads.

        Raises:
            LookupError: if this model has no such site.
            ValueError: if it cannot be known.
        """
        return site_layout(self, site)

    @property
    def picture_grid(self) -> tuple[int, int]:
        """Height and width of the latents, as a picture."""
        height, width = self.latent_shape[-2:]
        return (height, width)

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Names of the components that read text, in the pipeline's order."""
        return tuple(name for name in self.components if name.startswith(TEXT))
