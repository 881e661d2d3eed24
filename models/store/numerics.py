"""The version of our numerics: one number, part of every key under which results are kept."""

from __future__ import annotations

NUMERICS = 1
"""Goes up by one with every change after which the same call may give other numbers (more than rounding is
not needed: one bit is enough), so that no result of the code before is taken for one of the code now."""
