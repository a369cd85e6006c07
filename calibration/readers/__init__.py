"""Where samples come from: one reader a source, each reading one sample at a time."""
