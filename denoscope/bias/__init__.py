"""A bias measured, found in features and mitigated: as a value, a table and a page."""

from .result import BiasStudy

__all__ = ["BiasStudy"]
