"""Exporters print progress and warn about their own internals; a user can do nothing about either."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = (
    "torch.onnx", "torch.export", "torch._export", "torch.fx", "torch._subclasses", "torch._dynamo", "torch.jit",
    "onnxscript", "onnx_ir",
)  # fmt: skip
#: Above every level: what these loggers call an error is raised as well, or is none.
_NOTHING = logging.CRITICAL + 1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, progress lines and log records of torch's and onnxscript's exporters."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_NOTHING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
