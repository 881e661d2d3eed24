"""Which features of a sparse dictionary tell what is wanted from what is there?"""

from __future__ import annotations

import xarray as xr

from ...models.errors import DenoscopeError
from ...models.progress import Progress
from ...probes.dictionary import Dictionary
from ..case import Setup
from ..changes.by_features import found_in
from ..changes.ground import Ground
from .information import SKIPPED


def features(setup: Setup, dictionary: Dictionary, progress: Progress) -> xr.Dataset:
    """Features by how they tell prompts with what is wanted from those without; see ``bias_features``.

    Where it cannot be said, an empty dataset whose attribute ``skipped`` says why.
    """
    try:
        return found_in(Ground(setup, progress), dictionary, progress).data
    except DenoscopeError as error:
        return xr.Dataset(attrs={SKIPPED: " ".join(str(error).split())})
