"""What we change: one method a file, each returns an Edit."""
