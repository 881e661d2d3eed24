"""Large studies: matrix products in bfloat16 where the CPU has them, and all else in float32.

New CPUs multiply bfloat16 almost twice as fast as float32; older ones have no such product, and take fifty
times as long. Solves are in float64 either way, and what these studies report are means over many pictures.
"""

from __future__ import annotations

import torch

from denoscope.models.opening.placing import has_bfloat16


def said() -> str:
    """In which formats things are computed, for a page."""
    return f"Matrix products in {'bfloat16' if has_bfloat16() else 'float32'}, solves in float64."


def bfloat16() -> torch.autocast:
    """Autocast that keeps no copies of weights, for an edit changes them in between; or none."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(), cache_enabled=False)
