"""Latency, energy and memory without the device: a fitted cost model with its error band."""
