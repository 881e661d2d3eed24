"""The whole loop, from a prompt to an edit that was measured."""

from .case import Case

__all__ = ["Case"]
