"""The commands, one a file: a few lines each around what the package does."""
