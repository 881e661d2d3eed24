"""Check it: before and after the edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import xarray as xr
from torch import Tensor

from ...analysis.edit_evaluation.evaluate import described, evaluate_edit, judged
from ...editing.edit import Edit
from ...models.images import to_array
from ...models.judges.choosing import about_judge, any_judge
from ...models.progress import Progress
from ...models.store.provenance import provenance
from ..case import Setup


def check(
    setup: Setup, edit: Edit, progress: Progress, images: Mapping[str, Tensor] | None = None
) -> xr.Dataset:
    """Pictures before and after the edit under the same seeds, and what the judge says about them.

    Args:
        setup: of the case.
        edit: what was made.
        progress: called with (done, total, what).
        images: pictures [prompt, seed, ...] before, after and asked outright, if they are there already.
    """
    prompts = setup.wording.evaluation_prompts()
    judge = setup.judge or _Nobody()
    if images is None:
        found = evaluate_edit(setup.model, edit.applied, prompts, judge=judge, **setup.run, progress=progress)
    else:
        about = provenance(setup.model, change=described(edit.applied), judge=about_judge(any_judge(judge)))
        found = judged(images, prompts, judge, setup.seeds, about)
    pictures = {
        name: to_array(images.flatten(0, 1)).rename(sample="picture") for name, images in found.images.items()
    }
    return found.data.assign(pictures).assign_attrs(judged=int(setup.judge is not None))


class _Nobody:
    """Stands where there is no judge: only pixels are compared."""

    about: ClassVar = {"name": "nobody"}

    def similarity(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """No opinion: NaN, which nobody takes for a fit."""
        return torch.full((len(images), len(texts)), torch.nan)
