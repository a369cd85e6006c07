"""TensorRT: explicit Q/DQ graphs, calibration caches, and engines where they can be built."""
