"""The sections of the page, top to bottom, one a file: ``section(results)`` gives its words and figures."""
