"""Which part of the picture a word speaks of."""
