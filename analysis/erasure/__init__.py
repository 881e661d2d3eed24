"""Is it gone? What an edit leaves for somebody who tries, and how deep it goes."""
