"""Circuits: which features of one site make which features of another, for one prompt and word."""
