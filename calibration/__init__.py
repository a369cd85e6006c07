"""Calibration data, the one streaming pass over it, threshold methods, the table and the quantizer."""
