"""Runs saved Core ML programs in a reference executor, or on a Mac over ssh."""
