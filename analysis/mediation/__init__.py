"""Causal mediation: which states carry a word into the picture."""
