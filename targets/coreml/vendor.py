"""coremltools, imported once and quietly: it warns about every version and every part that only a Mac has."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from edgedeploy.errors import MissingToolError


def coremltools() -> Any:
    """Import coremltools; `MissingToolError` with the install command where it is absent."""
    log = logging.getLogger("coremltools")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools as ct
            import coremltools.optimize.coreml
    except ImportError as error:
        raise MissingToolError("coremltools", install="pip install 'edgedeploy[coreml]'", found=str(error)) from error
    finally:
        log.setLevel(max(level, logging.ERROR))
    return ct
