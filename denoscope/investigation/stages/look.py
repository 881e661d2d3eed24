"""Look: pictures, what they look like on the way, and where each word was read."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from ...analysis.attribution.attention_maps import word_maps
from ...models.base import State
from ...models.images import to_array
from ...models.progress import Progress
from ..case import Setup


def look(setup: Setup, progress: Progress) -> xr.Dataset:
    """Pictures, what they look like on the way, and where each word was read."""
    model, steps = setup.model, len(setup.model.steps(setup.case.steps))
    noisy: list[Tensor] = []
    clean: list[Tensor] = []

    def watch(state: State) -> None:
        noisy.append(model.decode(state.model_input))
        clean.append(model.decode(model.to_x0(state.model_input, state.output, state.step)))

    maps = word_maps(
        model, [setup.case.prompt] * len(setup.seeds), **setup.run, on_step=watch, progress=progress
    )
    return xr.Dataset(
        {
            "pictures": to_array(maps.images),
            "noisy": xr.concat([to_array(x) for x in noisy], "step"),
            "predicted": xr.concat([to_array(x) for x in clean], "step"),
            "words": maps.maps.drop_vars("prompt").rename(y="map_y", x="map_x"),
        },
        coords={"step": range(steps), "seed": ("sample", setup.seeds)},
    )
