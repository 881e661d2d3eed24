"""Large studies: matrix products in bfloat16 on CPUs that have it, and all else in float32.

Solves are in float64 either way, and what these studies report are means over many pictures.
"""

from __future__ import annotations

import torch

from denoscope.models.opening.placing import has_bfloat16

SAID = "Matrix products in bfloat16 where the CPU has it, solves in float64."


def bfloat16() -> torch.autocast:
    """Autocast that keeps no copies of weights: an edit changes them in between."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(), cache_enabled=False)
