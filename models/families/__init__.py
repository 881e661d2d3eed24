"""One adapter a file; what several share begins with an underscore."""
