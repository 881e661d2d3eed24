"""Directions of attributes: found in text or at sites, given a unit, scored, and evaluated."""
