"""Many interventions at the price of few."""

from .partition import SweepRun
from .sweeping import Swept, sweep

__all__ = ["SweepRun", "Swept", "sweep"]
