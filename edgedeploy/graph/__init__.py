"""The canonical FP32 graph that every backend starts from, and what is known about each of its ops."""
