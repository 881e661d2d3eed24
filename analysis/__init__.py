"""What we conclude: one method a file, each returns Scores or Directions."""
