"""One short file per family of ops; each says which ONNX ops it takes and how they are written."""
