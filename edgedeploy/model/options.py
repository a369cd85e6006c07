"""What the user says about a model file: its inputs, its architecture, and how far the file is trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgedeploy.errors import InputError
from edgedeploy.tensors import Dimension, TensorSpec

#: numpy names of the input types that an exported graph can take.
INPUT_DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")

_EXAMPLE = "write name:1x3x224x224:float32, the first axis being the batch (1, or 'batch' for any size)"


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model file.

    Attributes:
        factory: ``pkg.mod:callable`` that builds the architecture for a file that holds only weights.
        inputs: the inputs in the order of ``forward``, where the file carries no shapes.
        allow_globals: dotted names of classes that a pickle may construct.
        trust_code: the user vouches for the code inside a TorchScript archive.
        unsafe_load: the user vouches for everything a pickle may do.
        dynamic_batch: by default, capture with a batch of any size.
    """

    factory: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    allow_globals: frozenset[str] = frozenset()
    trust_code: bool = False
    unsafe_load: bool = False
    dynamic_batch: bool = False


def parse_input(text: str) -> TensorSpec:
    """Read one ``--input``: ``name:1x3x224x224:float32``; the dtype may be left out (float32).

    Raises:
        InputError: where the text is not of that form, a size is not positive or the dtype is not known.
    """
    name, *rest = text.split(":")
    if not name.strip() or not 1 <= len(rest) <= 2:
        raise InputError(f"--input {text!r} is not an input description.", remedy=f"Please {_EXAMPLE}.")
    dtype = rest[1].strip() if len(rest) == 2 else "float32"
    if dtype not in INPUT_DTYPES:
        raise InputError(
            f"--input {text!r} names an unknown type.",
            found=repr(dtype),
            remedy=f"Choose one of: {', '.join(INPUT_DTYPES)}.",
        )
    words = [word.strip() for word in rest[0].split("x")] if rest[0].strip() else []
    return TensorSpec(name.strip(), tuple(_dimension(word, axis, text) for axis, word in enumerate(words)), dtype)


def _dimension(word: str, axis: int, text: str) -> Dimension:
    if re.fullmatch(r"[1-9][0-9]{0,11}", word):
        return int(word)
    if axis == 0 and word in ("batch", "N", "?", "-1"):
        return "batch"
    raise InputError(
        f"--input {text!r}: axis {axis} has no usable size.",
        found=repr(word),
        remedy=f"Sizes are whole numbers from 1; only the first axis may be 'batch'. Please {_EXAMPLE}.",
    )
