"""Backends: one folder each, from the captured graph to the files that a device takes."""
