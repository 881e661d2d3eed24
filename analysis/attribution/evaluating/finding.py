"""How well maps find things whose place is known, with no threshold that has seen them.

Measures of a word's map and its mask: the pointing game (Zhang et al. 2016): whether its highest place is
inside, ties shared; intersection over union where it is above a threshold; average precision over pixels,
which takes none. The threshold is the one of highest mean IoU on the other half of the pictures (each second
one). Intervals are over pictures; several words of one are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from ....models.arguments import checked
from ....models.base import Model
from ....models.drawn import Figure
from ....models.html import frame_table, panel
from ....models.progress import Progress, showing
from ....models.store.provenance import provenance
from ...intervals import interval
from ...scores import Scores
from ...stored import Stored
from .placed import THRESHOLDS, MapsOf, Placed, check_methods, measured, sized_maps

Measure: TypeAlias = Literal["hit", "iou", "precision"]
MEASURES = ("hit", "iou", "precision")


@dataclass(frozen=True, eq=False)
class MapEvaluation(Stored):
    """How well maps find things.

    Args:
        data: ``hit``, ``iou`` and ``precision`` (method, scene), each in 0..1; ``threshold`` (method, half):
            that of the pictures 0, 2, ... and of 1, 3, ..., each fixed on the other ones.
    """

    needed: ClassVar[frozenset[str]] = frozenset({*MEASURES, "threshold"})

    def __repr__(self) -> str:
        best = str(self.data["precision"].mean("scene").idxmax().item())
        return f"MapEvaluation({dict(self.data['hit'].sizes)}; best by average precision: {best})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table with a row for each method and measure: mean, low and high over pictures.

        Args:
            level: how often such intervals hold the true mean.
        """
        rows = []
        for measure in MEASURES:
            found = interval(self.data[measure], ["scene"], level)
            for i, method in enumerate(self.data["method"].values):
                bounds = (float(found[k].values[i]) for k in ("mean", "low", "high"))
                rows.append((str(method), measure, *bounds))
        return pd.DataFrame(rows, columns=["method", "measure", "mean", "low", "high"])

    @checked
    def plot(self) -> Figure:
        """Return a map of methods by measures, ``analysis.plots.effect_map``."""
        values = xr.concat([self.data[m] for m in MEASURES], pd.Index(MEASURES, name="measure"))
        return Scores(values.rename(method="site", scene="draw").transpose("site", ...)).plot("score")


@checked
def evaluate_maps(
    model: Model,
    scenes: Sequence[Placed],
    methods: Mapping[str, MapsOf],
    *,
    progress: Progress | None = None,
) -> MapEvaluation:
    """Make maps of pictures whose layout is known, and say how well they find what is there.

    Args:
        model: what the maps are of.
        scenes: pictures with masks, in an order in which each second one is as good as the others.
        methods: by name, what makes maps: from the model and pictures to [word, y, x] for each.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for no methods, fewer than four pictures, and maps with NaN.
        TypeError: for methods that return anything but a tensor of maps for each picture.
    """
    check_methods(methods, scenes)
    maps = dict[str, Sequence[Tensor]]()
    with showing(progress) as show:
        for i, (name, maps_of) in enumerate(methods.items()):
            maps[name] = maps_of(model, scenes)
            show(i + 1, len(methods), "ways to make maps")
    found = score_maps(maps, scenes)
    return MapEvaluation(found.data.assign_attrs(provenance(model, scenes=len(scenes))))


@checked
def score_maps(maps: Mapping[str, Sequence[Tensor]], scenes: Sequence[Placed]) -> MapEvaluation:
    """Say how well maps that are there already find what is in pictures.

    Args:
        maps: by method, [word, y, x] of each picture, of any size.
        scenes: the pictures.

    Raises:
        ValueError, TypeError: as ``evaluate_maps``.
    """
    check_methods(maps, scenes)
    shape = (len(maps), len(scenes))
    hit, iou, precision = (np.empty(shape) for _ in range(3))
    cut = np.empty((len(maps), 2))
    for m, (name, own) in enumerate(maps.items()):
        curves = np.empty((len(scenes), len(THRESHOLDS)))
        for s, (heat, scene) in enumerate(zip(sized_maps(name, own, scenes), scenes, strict=True)):
            words = [measured(h, mask.numpy()) for h, mask in zip(heat, scene.masks.cpu(), strict=True)]
            curves[s] = np.mean([w[0] for w in words], 0)
            hit[m, s], precision[m, s] = (float(np.mean([w[i] for w in words])) for i in (1, 2))
        for half in (0, 1):
            best = int(curves[1 - half :: 2].mean(0).argmax())
            cut[m, half], iou[m, half::2] = THRESHOLDS[best], curves[half::2, best]
    dims = ("method", "scene")
    data = {"hit": (dims, hit), "iou": (dims, iou), "precision": (dims, precision)}
    coords = {"method": list(maps), "caption": ("scene", [s.caption for s in scenes])}
    return MapEvaluation(xr.Dataset({**data, "threshold": (("method", "half"), cut)}, coords))
