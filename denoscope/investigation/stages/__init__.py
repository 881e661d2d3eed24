"""The stages of an investigation, one a file; each returns a labelled dataset, or the edit."""
