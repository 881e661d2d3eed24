"""Two models of one architecture side by side: pictures, weights, activations, as a value and a page."""

from .result import ComparedModels

__all__ = ["ComparedModels"]
