"""Inside a pipeline's own call: which rows are whose, which step it is, what was said."""
