"""How much prompts tell of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.html import frame_table, panel
from .saving import Nats


@dataclass(frozen=True, eq=False)
class Information(Nats):
    """Point-wise (conditional) mutual information of pictures and texts, in nats.

    Args:
        data: ``nats`` and ``stderr`` [image]; ``map`` and ``v_map`` [image, y, x], the first of which adds up
            to ``nats``; ``density`` [image, level], nats per log-SNR; ``prompt`` and ``given`` [image].
    """

    needed: ClassVar[frozenset[str]] = Nats.needed | {"density", "prompt", "given"}

    def __repr__(self) -> str:
        first = f"{float(self.nats[0]):.4g} ± {float(self.stderr[0]):.2g} nats"
        more = f", and {len(self.nats) - 1} more" if len(self.nats) > 1 else ""
        return f"Information({self.data.attrs['estimator']}: {first}{more}{self._reached})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    def to_frame(self) -> pd.DataFrame:
        """Return a table of images: prompt, given, nats, stderr."""
        columns = ("prompt", "given", "nats", "stderr")
        return pd.DataFrame({"image": self.data["image"], **{c: self.data[c] for c in columns}})

    @checked
    def plot(self, image: int = 0) -> Figure:
        """Return where it is told, ``analysis.plots.nats_maps``: in nats, and weighed as errors of v.

        Raises:
            ValueError: for an image that is not there.
        """
        part = self._image(image)
        return figure(
            "nats_maps", np.stack([part["map"], part["v_map"]]), ["in nats", "weighed as v"], shared=False
        )
