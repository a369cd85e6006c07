"""Runs int8 flatbuffers in the TensorFlow Lite Micro interpreter, on emulated or real boards."""
