"""Many interventions at the price of few."""

from .batching import SweepRun
from .sweeping import Progress, Swept, sweep

__all__ = ["Progress", "SweepRun", "Swept", "sweep"]
