"""From a name that a user or a profile gives to the arithmetic that it stands for."""

from __future__ import annotations

from edgedeploy.calibration.schemes import SCHEMES
from edgedeploy.errors import InputError
from edgedeploy.plain_text import printable
from edgedeploy.precision import FLOAT16, FLOAT32, INT8, INT16, Precision

#: Names of `--precision` and of a profile's scheme: the arithmetic itself, or a quantization scheme.
PRECISIONS: dict[str, Precision] = {
    **{precision.name: precision for precision in (FLOAT32, FLOAT16, INT8, INT16)},
    **{name: INT8 if scheme.activation.bits == 8 else INT16 for name, scheme in SCHEMES.items()},
}


def precision_of(name: str) -> Precision:
    """The arithmetic of a name ("qnn-a16w8" → int16).

    Raises:
        InputError: a name that stands for none, with the known ones.
    """
    if name not in PRECISIONS:
        raise InputError(
            f"There is no precision {printable(name, limit=200)!r}.", remedy=f"Choose one of: {', '.join(PRECISIONS)}."
        )
    return PRECISIONS[name]
