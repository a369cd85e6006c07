"""JSON that every reader takes: it has no NaN and no infinities, so these become strings that read back as numbers."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Indented JSON; NaN and infinities become ``"nan"``, ``"inf"`` and ``"-inf"``, which ``float()`` reads."""
    return json.dumps(plain(value), indent=2, sort_keys=sort_keys, allow_nan=False).replace("\x7f", "\\u007f")


def plain(value: Any) -> Any:
    """The same value with strings in place of numbers that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
