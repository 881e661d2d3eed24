"""Frozen scorers of pictures."""

from .embedded import Attributes, ImageTower, Judge, load_judge, read_judge

__all__ = ["Attributes", "ImageTower", "Judge", "load_judge", "read_judge"]
