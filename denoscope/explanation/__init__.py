"""What each word of a prompt does to one picture."""

from .result import Explanation

__all__ = ["Explanation"]
