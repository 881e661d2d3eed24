"""Check it: before and after the edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import xarray as xr
from torch import Tensor

from ...analysis.edit_evaluation.evaluate import evaluate_edit
from ...editing.edit import Edit
from ...models.images import to_array
from ...models.progress import Progress
from ..case import Setup


def check(setup: Setup, edit: Edit, progress: Progress) -> xr.Dataset:
    """Pictures before and after the edit under the same seeds, and what the judge says about them."""
    prompts = setup.wording.evaluation_prompts()
    judge = setup.judge or _Nobody()
    found = evaluate_edit(setup.model, edit.applied, prompts, judge=judge, **setup.run, progress=progress)
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
