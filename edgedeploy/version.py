"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("edgedeploy")
except PackageNotFoundError:  # imported from a checkout that was never installed
    VERSION = "unknown"
