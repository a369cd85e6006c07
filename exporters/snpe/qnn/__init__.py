"""Qualcomm's own compiler and Hexagon simulator, as the onnxruntime-qnn package carries them, driven in a subprocess."""
