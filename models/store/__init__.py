"""What lies on disk: whole or not there, and where it came from."""
