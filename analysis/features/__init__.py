"""Bias features: which features tell a class, which move it, and what taking a bias out costs."""
