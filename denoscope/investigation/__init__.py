"""The whole loop, from a prompt to an edit that was measured."""
