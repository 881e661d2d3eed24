"""What an edit changed, and what else moved."""
