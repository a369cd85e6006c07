"""Runs TensorRT artefacts: emulated here, real on a machine with a GPU."""
