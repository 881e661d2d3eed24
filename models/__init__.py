"""What we look into: load a pipeline, speak one language about every family."""
