"""Pages of features: where each is on, what it tells, what editing it does."""

from .result import Atlas

__all__ = ["Atlas"]
