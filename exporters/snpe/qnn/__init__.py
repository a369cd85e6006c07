"""Qualcomm's own compiler and Hexagon simulator, as onnxruntime-qnn carries them, driven in a subprocess."""
