"""What a deployment leaves behind: artefact, golden vectors, manifest, lock, measurements, report."""
