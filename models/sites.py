"""A list of sites that shows itself as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import pandas as pd
import torch

from .places.hooks import hooked
from .places.refuse import uncompiled
from .run.context import Call
from .run.levels import Step
from .site import Site

if TYPE_CHECKING:
    from .adapter import Adapter


class Sites(Sequence[Site]):
    """Sites of one model, in network order; ``to_frame()`` is the table."""

    def __init__(self, sites: Sequence[Site], model: Adapter) -> None:
        self._sites, self._model = tuple(sites), model

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> Sites: ...
    def __getitem__(self, index: int | slice) -> Site | Sites:
        found = self._sites[index]
        return found if isinstance(found, Site) else Sites(found, self._model)

    def __len__(self) -> int:
        return len(self._sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self._sites)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {s}" for s in self._sites[:8])
        more = f"\n  ... {len(self) - 8} more" if len(self) > 8 else ""
        return f"{len(self)} sites of {self._model.name}\n{rows}{more}"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())

    def to_frame(self) -> pd.DataFrame:
        """Return a table with address, component, block, kind and shape per sample."""
        shapes = site_shapes(self._model)
        rows = [(str(s), s.component, s.block, s.kind, shapes[s]) for s in self]
        return pd.DataFrame(rows, columns=["site", "component", "block", "kind", "shape"]).set_index("site")


def site_shapes(model: Adapter) -> dict[Site, tuple[int, ...]]:
    """Return the shape of one sample's tensor at every site; one forward of one sample, remembered."""
    places = model.places()
    if model.size not in model.live.shapes:
        found: dict[Site, tuple[int, ...]] = {}

        def look(site: Site, x: torch.Tensor) -> None:
            found[site] = tuple(x.shape[1:])

        watch = [(s, lambda x, s=s: look(s, x)) for s in places]
        somewhen = Step(0, 500.0, 1.0)  # no scheduler is asked, so models without weights do as well
        nobody = model.live.suspending()  # else is told
        with torch.no_grad(), nobody, uncompiled(model), hooked(model, watch):
            prompts = model.encode([""])
            with model.calling(Call(model.input_site.component, {"cond": slice(0, 1)}, (somewhen,))):
                model.predict(model.noise([0]), somewhen, prompts)
        model.live.shapes[model.size] = {s: found[s] for s in places if s in found}
    return model.live.shapes[model.size]
