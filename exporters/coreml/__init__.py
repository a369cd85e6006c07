"""Core ML: mlprogram packages."""
