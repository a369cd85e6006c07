"""The Qualcomm SDK's own converters, where one is installed."""
