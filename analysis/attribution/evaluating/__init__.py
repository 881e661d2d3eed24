"""How well maps find things whose place is known, and whether they are of what a model has learned."""
