"""One paper a file; each returns an Edit."""
