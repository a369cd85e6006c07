"""Snapdragon: quantized DLC files and Hexagon context binaries."""
