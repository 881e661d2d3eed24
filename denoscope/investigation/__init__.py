"""The whole loop, from a prompt to an edit that was measured."""

from .case import Case
from .result import Investigation

__all__ = ["Case", "Investigation"]
