"""edgedeploy: takes a trained model to a named device and proves it there.

from edgedeploy import deploy
result = deploy("model.pt", target="snapdragon888", calibration="calib.npz")
result.verdicts, result.bundle, result.exit_code
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedeploy.api import deploy, estimate, verify

__all__ = ["deploy", "estimate", "verify"]


def __getattr__(name: str) -> object:
    """Import the public functions on first use, so that ``import edgedeploy`` costs nothing."""
    if name in __all__:
        from edgedeploy import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgedeploy' has no attribute {name!r}")
