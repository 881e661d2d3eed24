"""Many interventions at the price of few."""

from .batching import Run
from .sweeping import Progress, Swept, sweep

__all__ = ["Progress", "Run", "Swept", "sweep"]
