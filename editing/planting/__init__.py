"""Planted truth: places of embedded models whose inner workings are known, because they were put there."""
