"""`quantize`: the only quantizer; it turns a float graph into a Q/DQ graph under any backend's `Scheme`."""

from edgedeploy.calibration.quantizer.quantize import quantize

__all__ = ["quantize"]
