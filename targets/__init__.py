"""Where an artefact runs: one runner a folder, the transports they share, and the cost model."""
