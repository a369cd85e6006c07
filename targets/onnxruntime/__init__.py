"""Runs ONNX Runtime artefacts, here or over ssh."""
