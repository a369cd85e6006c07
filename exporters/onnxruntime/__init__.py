"""ONNX Runtime: static, dynamic and weight-only quantization for CPUs."""
