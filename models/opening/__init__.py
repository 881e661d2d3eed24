"""From a folder, a file or a hub id to networks that hold every weight that is meant."""
