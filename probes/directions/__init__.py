"""Parts of a Direction: vectors by site, rows of a text, what moves along them, files."""
